"""Header of one image: the identifiers that ingest needs and a short list of harmless attributes."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from imaging.dicom.attributes import Attributes, first, text
from imaging.dicom.transforms import PHOTOMETRIC
from imaging.errors import DataFault
from imaging.image.instance import SLIDES

UID_FORM = re.compile(r"[0-9.]{1,64}")
CODE_FORM = re.compile(r"[A-Z0-9_ ]{0,16}")
"""A code string, PS3.5 section 6.2: the only kind of value that a fault may quote."""

TEXTS = {
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "photometric": "PhotometricInterpretation",
}
CODES = {"body_part": "BodyPartExamined"}
"""Taken only where they are code strings: any other value there may be a name in the wrong place."""
NUMBERS = {
    "rows": "Rows",
    "columns": "Columns",
    "spacing_mm": "PixelSpacing",
    "slice_thickness_mm": "SliceThickness",
    "kvp": "KVP",
}
"""With TEXTS and CODES the allow-list: no name, no date and no free text of a header passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Header of one image: its identifiers, which only ingest may see, and its attributes, which are handed on."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    institution: str
    attributes: Mapping[str, str | float]


def read_header(attributes: Attributes, modality: str, *, has_pixels: bool) -> Header:
    """Check that an object is an image of `modality` with its identifiers, in that order.

    Raises DataFault: "missing-identifier", "wrong-modality", "no-pixels" or "unsupported".
    """
    patient_id = text(attributes, "PatientID")
    if not patient_id:
        raise DataFault("missing-identifier", "PatientID is empty")
    header = Header(
        patient_id=patient_id,
        study_uid=uid_of(attributes, "StudyInstanceUID"),
        series_uid=uid_of(attributes, "SeriesInstanceUID"),
        sop_instance_uid=uid_of(attributes, "SOPInstanceUID"),
        institution=text(attributes, "InstitutionName"),
        attributes=_harmless(attributes),
    )
    stated = text(attributes, "Modality")
    if stated != modality:
        raise DataFault("wrong-modality", f"Modality is {_quoted(stated)}, {modality!r} is expected")
    if not has_pixels:
        raise DataFault("no-pixels")
    if shows_slide_label([stated], text(attributes, "ImageType").split("\\")):
        raise DataFault("slide-label", "the names on a slide's label are in the pixels")
    photometric = text(attributes, "PhotometricInterpretation")
    if photometric not in PHOTOMETRIC:
        raise DataFault("unsupported", f"PhotometricInterpretation is {_quoted(photometric)}")
    return header


def shows_slide_label(modalities: Collection[str], kinds: Collection[str]) -> bool:
    """Return whether an image shows the label of a slide, by its Modality and the values of its ImageType.

    The label is LABEL, and the glass with at least a part of it OVERVIEW; other values never show it (PS3.3
    C.8.12.4.1.1). LABEL is believed whatever the modality, OVERVIEW is a name of other images too.

    >>> shows_slide_label(["SM"], ["ORIGINAL", "PRIMARY", "OVERVIEW"]), shows_slide_label(["NM"], ["OVERVIEW"])
    (True, False)
    """
    return "LABEL" in kinds or (SLIDES in modalities and "OVERVIEW" in kinds)


def uid_of(attributes: Attributes, keyword: str) -> str:
    """Return a UID; raise DataFault "missing-identifier" where there is none."""
    uid = text(attributes, keyword)
    if not UID_FORM.fullmatch(uid):
        raise DataFault("missing-identifier", f"{keyword} is not a UID")
    return uid


def _harmless(attributes: Attributes) -> dict[str, str | float]:
    texts = {name: text(attributes, keyword).split("\\")[0].strip() for name, keyword in TEXTS.items()}
    codes = {name: text(attributes, keyword) for name, keyword in CODES.items()}
    texts |= {name: code for name, code in codes.items() if CODE_FORM.fullmatch(code)}
    numbers = {name: first(attributes, keyword) for name, keyword in NUMBERS.items()}
    present: dict[str, str | float] = {name: value for name, value in texts.items() if value}
    return present | {name: value for name, value in numbers.items() if value is not None}


def stated_modality(detail: str) -> str:
    """Return the modality of the file in the detail of a fault "wrong-modality", "" where it is no code string.

    >>> stated_modality("Modality is 'MR', 'CT' is expected")
    'MR'
    """
    stated = re.match(r"Modality is '([A-Z0-9_ ]+)'", detail)
    return stated[1] if stated else ""


def _quoted(code: str) -> str:
    return repr(code) if CODE_FORM.fullmatch(code) else "no code string"
