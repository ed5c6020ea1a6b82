"""Owns what a worker of the sandbox makes of one file: the bytes of its de-identified twin, or the fault."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FUNCTION = "imaging.deidentify.parcel:deidentify_parcel"


def deidentify_parcel(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """De-identify one parcel; a `Function` of the sandbox.

    `setup` has `options` (JSON) and `secret` (hex), `value` and `blobs` are those of `draft_parcel`. The answer has
    `patient`, `study`, `series`, `instance` (the new ones), `sha256` and `findings` beside one blob, the new file; or
    `fault`, a reason and a detail.
    """
    raise NotImplementedError
