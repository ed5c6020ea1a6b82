"""Owns what an object says of its own de-identification (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1.1.4)."""

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from imaging.deidentify.case import Case
from imaging.deidentify.options import method_codes
from imaging.deidentify.profile import EDITION
from imaging.deidentify.raw import Element, make_raw

VERSION_NAME = "RADLOOP_1"
IDENTITY_REMOVED, METHOD, METHOD_CODES = 0x00120062, 0x00120063, 0x00120064
TEMPORAL_INFORMATION = 0x00280303
CODE_VALUE, SCHEME, MEANING = 0x00080100, 0x00080102, 0x00080104


def state(case: Case, found: dict[BaseTag, Element]) -> None:
    """Put the statement in the place of what an earlier de-identification said."""
    words = {
        IDENTITY_REMOVED: ("CS", "YES"),
        METHOD: ("LO", f"{VERSION_NAME} PS3.15 E {EDITION}"),
        TEMPORAL_INFORMATION: ("CS", "MODIFIED" if case.options.dates == "shift" else "REMOVED"),
    }
    for tag, (vr, text) in words.items():
        _put(case, found, tag, vr, text)
    codes = [_code(case, value, meaning) for value, meaning in method_codes(case.options)]
    found[BaseTag(METHOD_CODES)] = DataElement(METHOD_CODES, "SQ", Sequence(codes))


def _code(case: Case, value: str, meaning: str) -> Dataset:
    found: dict[BaseTag, Element] = {}
    for tag, vr, text in ((CODE_VALUE, "SH", value), (SCHEME, "SH", "DCM"), (MEANING, "LO", meaning)):
        _put(case, found, tag, vr, text)
    made = Dataset(found)
    made.set_original_encoding(case.implicit, case.little, "iso8859")
    return made


def _put(case: Case, found: dict[BaseTag, Element], tag: int, vr: str, text: str) -> None:
    found[BaseTag(tag)] = make_raw(tag, vr, text.encode(), implicit=case.implicit, little=case.little)
