"""Owns what a worker of the sandbox makes of one file: the bytes of its de-identified twin, or the fault."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from imaging.buffer import FileBuffer
from imaging.deidentify.burned_in import check_pixels
from imaging.deidentify.documents import check_class
from imaging.deidentify.engine import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.deidentify.written import write_object
from imaging.dicom.elements import Buffer
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading
from imaging.errors import DataFault

FUNCTION = "imaging.deidentify.parcel:deidentify_parcel"
IDENTIFIERS = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
}


def deidentify_parcel(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """De-identify one parcel; a `Function` of the sandbox.

    `setup` has `options` (JSON) and `secret` (hex), `value` and `blobs` are those of `draft_parcel`. The answer has
    `patient`, `study`, `series`, `instance` (the new ones), `patient_variant` (see `Pseudonyms.otherwise`), `sha256`
    and `findings` beside one blob, the new file; or `fault`, a reason and a detail.
    """
    try:
        if value["format"] != "dicom":
            raise DataFault("not-dicom")
        data = _buffer().load(blobs[0], LIMITS.file_bytes) if isinstance(blobs[0], Path) else blobs[0]
        options = _options(setup["options"])
        pseudonyms = Pseudonyms(bytes.fromhex(setup["secret"]), options.patient_variants)
        dataset = parse(data)
        variant = _variant(dataset, pseudonyms)
        made = deidentified(dataset, data, options, pseudonyms)
        written = write_object(made)
    except DataFault as fault:
        return {"fault": [fault.reason, fault.detail]}, ()
    new = {name: str(made[keyword].value) for name, keyword in IDENTIFIERS.items()}
    digest = hashlib.sha256(written).hexdigest()
    return new | {"patient_variant": variant, "sha256": digest, "findings": []}, [written]


def _variant(dataset: Dataset, pseudonyms: Pseudonyms) -> str:
    with reading("unreadable"):
        return pseudonyms.otherwise(str(dataset.get("PatientID") or ""))


def deidentified(
    dataset: Dataset, data: Buffer, options: DeidentifyOptions, pseudonyms: Pseudonyms
) -> Dataset:
    """Return the data set of a file as it may leave the house; raises DataFault where it must not."""
    # Cheaper than to look at pixels of what does not pass anyway.
    check_class(dataset, options)
    return scrub(check_pixels(dataset, data, options), options, pseudonyms)


@cache
def _options(json: str) -> DeidentifyOptions:
    return DeidentifyOptions.model_validate_json(json)


@cache
def _buffer() -> FileBuffer:
    """Keep one buffer for the life of the worker."""
    return FileBuffer()
