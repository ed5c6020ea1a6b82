"""Owns what is read from a header: the identifiers ingest needs and a short list of harmless attributes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from imaging.dicom.parse import reading
from imaging.errors import DataFault

UID_FORM = re.compile(r"[0-9.]{1,64}")
CODE_FORM = re.compile(r"[A-Z0-9_ ]{0,16}")
"""A code string, PS3.5 section 6.2: the only kind of value that a fault may quote."""

TEXTS = {"modality": "Modality", "manufacturer": "Manufacturer", "photometric": "PhotometricInterpretation"}
NUMBERS = {
    "rows": "Rows",
    "columns": "Columns",
    "spacing_mm": "PixelSpacing",
    "slice_thickness_mm": "SliceThickness",
    "kvp": "KVP",
}
"""With TEXTS the allow-list: no name, no date and no free text can pass, whatever a header holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The identifiers of one image, which only ingest may see, and its attributes, which may travel."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    attributes: Mapping[str, str | float]


def read_header(dataset: Dataset, modality: str) -> Header:
    """Check that a data set is one grey-scale image of `modality` with its identifiers, in that order.

    Raises DataFault: "missing-identifier", "wrong-modality", "no-pixels", "unsupported" or "unreadable".
    """
    with reading("unreadable"):
        header = Header(
            patient_id=_patient_id(dataset),
            study_uid=_uid(dataset, "StudyInstanceUID"),
            series_uid=_uid(dataset, "SeriesInstanceUID"),
            sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
            attributes=_attributes(dataset),
        )
        _check_modality(dataset, modality)
        _check_kind(dataset)
    return header


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return an attribute's first value as a finite number, or None where there is no such value.

    >>> dataset = Dataset()
    >>> dataset.PixelSpacing = [0.5, 0.7]
    >>> number(dataset, "PixelSpacing"), number(dataset, "KVP")
    (0.5, None)
    """
    try:
        value = float(text(dataset, keyword))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def text(dataset: Dataset, keyword: str) -> str:
    """Return an attribute's first value as text, empty where there is none."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = next(iter(value), None)
    return "" if value is None else str(value).strip(" \0")


def _patient_id(dataset: Dataset) -> str:
    value = dataset.get("PatientID")
    # A backslash parts a value in two: with the first part alone, two patients could become one.
    parts = value if isinstance(value, MultiValue) else [value or ""]
    patient_id = "\\".join(map(str, parts)).strip(" \0")
    if not patient_id:
        raise DataFault("missing-identifier", "PatientID is empty")
    return patient_id


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = str(dataset.get(keyword) or "").strip(" \0")
    if not UID_FORM.fullmatch(uid):
        raise DataFault("missing-identifier", f"{keyword} is not a UID")
    return uid


def _attributes(dataset: Dataset) -> dict[str, str | float]:
    texts = {name: text(dataset, keyword) for name, keyword in TEXTS.items()}
    numbers = {name: number(dataset, keyword) for name, keyword in NUMBERS.items()}
    found = {name: value for name, value in texts.items() if value}
    return {**found, **{name: value for name, value in numbers.items() if value is not None}}


def _check_modality(dataset: Dataset, modality: str) -> None:
    found = text(dataset, "Modality")
    if found != modality:
        raise DataFault("wrong-modality", f"Modality is {_quoted(found)}, {modality!r} is expected")


def _check_kind(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise DataFault("no-pixels")
    for keyword in ("SamplesPerPixel", "NumberOfFrames"):
        if (number(dataset, keyword) or 1) != 1:
            raise DataFault("unsupported", f"{keyword} is {number(dataset, keyword):g}, 1 is expected")
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataFault("unsupported", f"PhotometricInterpretation is {_quoted(photometric)}")


def _quoted(code: str) -> str:
    return repr(code) if CODE_FORM.fullmatch(code) else "no code string"
