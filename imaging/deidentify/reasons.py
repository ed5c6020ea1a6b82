"""Owns the reasons for which an object is not passed on de-identified, beside those for which a file is not read."""

from collections.abc import Mapping
from types import MappingProxyType

from imaging.deidentify.folder.ledger import CONFLICT
from imaging.refusal_reasons import IGNORED, REASONS

OURS: Mapping[str, str] = MappingProxyType(
    {
        "burned-in-text": "there is text in the pixels, or the object says so",
        "burned-in-doubt": "the pixels could not be searched for text",
        "face": "the images may show a face: a volume of the head, or features that the object calls recognizable",
        "document": "a structured report, a PDF or another document, whose text cannot be vouched for",
        CONFLICT: "the same SOPInstanceUID stands with other content",
    }
)

MEANINGS: Mapping[str, str] = MappingProxyType({**IGNORED, **REASONS, **OURS})
"""What each reason in a ledger means."""
