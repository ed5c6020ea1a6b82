"""Owns what a worker of the sandbox makes of one file: the bytes of its de-identified twin, or the fault."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydicom.dataset import Dataset

from imaging.buffer import FileBuffer
from imaging.deidentify.objects.documents import check_class
from imaging.deidentify.objects.engine import scrub
from imaging.deidentify.objects.fast_path import Swift, begin_swiftly
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.raw import raw_bytes
from imaging.deidentify.objects.rules import PATIENT_ID
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels.check import check_pixels
from imaging.dicom.elements import Buffer
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading
from imaging.errors import DataFault
from imaging.pseudonyms import Pseudonyms

PLAIN = re.compile(rb"[!-\[\]-~][ -\[\]-~]*\0?")
"""One value in ASCII, for which pydicom need not be asked."""
FUNCTION = "imaging.deidentify.payload:deidentify_parcel"
IDENTIFIERS = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
}


def deidentify_parcel(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Buffer]]:
    """De-identify one payload; a `Function` of the sandbox.

    `setup` has `options` (JSON) and `secret` (hex), `value` and `blobs` are those of `draft_parcel`. The answer has
    `patient`, `study`, `series`, `instance` (the new ones), `patient_variant` (see `Pseudonyms.variant_key`), `blake3`
    and `findings` beside the parts of the new file, good until the next call; or `fault`, a reason and a detail.
    """
    try:
        if value["format"] != "dicom":
            raise DataFault("not-dicom")
        data = _buffer().load(blobs[0], LIMITS.file_bytes) if isinstance(blobs[0], Path) else blobs[0]
        options = _options(setup["options"])
        pseudonyms = Pseudonyms(bytes.fromhex(setup["secret"]), options.patient_variants)
        swift = begin_swiftly(data, options, pseudonyms)
        dataset = swift.dataset if swift else parse(data)
        variant = _variant(dataset, pseudonyms)
        parts, told = deidentified(dataset, swift, data, options, pseudonyms)
    except DataFault as fault:
        return {"fault": [fault.reason, fault.detail]}, ()
    new = {name: told[keyword] for name, keyword in IDENTIFIERS.items()}
    digest = blake3()
    for part in parts:
        digest.update(part)
    return new | {"patient_variant": variant, "blake3": digest.hexdigest(), "findings": []}, parts


def _variant(dataset: Dataset, pseudonyms: Pseudonyms) -> str:
    raw = raw_bytes(dataset.get_item(PATIENT_ID)) if PATIENT_ID in dataset else b""
    if PLAIN.fullmatch(raw):
        return pseudonyms.variant_key(raw.decode().rstrip(" \0"))
    with reading("unreadable"):
        return pseudonyms.variant_key(str(dataset.get("PatientID") or ""))


def deidentified(
    dataset: Dataset, swift: Swift | None, data: Buffer, options: DeidentifyOptions, pseudonyms: Pseudonyms
) -> tuple[Sequence[Buffer], Mapping[str, str]]:
    """Return a file as it may leave the house, in parts, and its identifiers by keyword.

    Raises DataFault where it must not leave.
    """
    # Cheaper than to look at pixels of what does not pass anyway.
    check_class(dataset, options)
    looked_at = check_pixels(dataset, data, options)
    if swift is not None and (found := swift.twin()) is not None:
        return found
    made = scrub(looked_at, options, pseudonyms)
    return [write_object(made)], {keyword: str(made[keyword].value) for keyword in IDENTIFIERS.values()}


@cache
def _options(json: str) -> DeidentifyOptions:
    return DeidentifyOptions.model_validate_json(json)


@cache
def _buffer() -> FileBuffer:
    """Keep one buffer for the life of the worker."""
    return FileBuffer()
