"""De-identification that looks at no pixels: for measuring alone, there is no option for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imaging.deidentify import payload
from imaging.dicom.elements import Buffer

FUNCTION = "bench.without_pixels:without_pixels"


def without_pixels(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Buffer]]:
    """Do what the sandbox's function does, but for the search for text."""
    kept = payload.check_pixels
    payload.check_pixels = lambda dataset, data, options: dataset
    try:
        return payload.deidentify_payload(setup, value, blobs)
    finally:
        payload.check_pixels = kept
