"""Check of the SOP class: documents pass only by policy, and unknown kinds of objects never."""

from pydicom.dataset import Dataset

from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.attributes import decode_text
from imaging.errors import DataFault
from imaging.pseudonyms import is_standard_uid

SOP_CLASS = 0x00080016
STORAGE = "1.2.840.10008.5.1.4.1.1."
STRUCTURED = f"{STORAGE}88."
"""Structured reports and what is built like them (PS3.4 B.5)."""
ENCAPSULATED = (f"{STORAGE}104.", f"{STORAGE}9.4.")
"""Encapsulated PDF, CDA, STL, OBJ and MTL, and recorded voices: their content cannot be cleaned here."""


def check_sop_class(dataset: Dataset, options: DeidentifyOptions) -> None:
    """Raise DataFault "document" for a document that must not pass, "unsupported" for a class outside the standard."""
    element = dataset.get_item(SOP_CLASS)
    value = element.value if element is not None else None
    uid = decode_text(value) if isinstance(value, bytes) else str(value or "")
    if not uid:
        raise DataFault("missing-identifier", "SOPClassUID is missing or empty")
    if not is_standard_uid(uid):
        raise DataFault("unsupported", "the SOP class is private: nobody else knows what it holds")
    if uid.startswith(ENCAPSULATED):
        raise DataFault("document", "an encapsulated document or a recorded voice never passes")
    if uid.startswith(STRUCTURED) and options.documents == "quarantine":
        raise DataFault("document", "a structured report passes only where documents are to be cleaned")
