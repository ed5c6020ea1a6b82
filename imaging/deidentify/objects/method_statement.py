"""Statement in an object about its own de-identification (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1.1.4)."""

from collections.abc import Mapping
from functools import cache

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from imaging.deidentify.objects.raw_elements import Element, make_raw
from imaging.deidentify.options import DeidentifyOptions, method_codes
from imaging.deidentify.profile.profile import EDITION

VERSION_NAME = "RADLOOP_1"
IDENTITY_REMOVED, METHOD, METHOD_CODES = 0x00120062, 0x00120063, 0x00120064
TEMPORAL_INFORMATION = 0x00280303
CODE_VALUE, SCHEME, MEANING = 0x00080100, 0x00080102, 0x00080104


@cache
def statement(options: DeidentifyOptions, implicit: bool, little: bool) -> Mapping[BaseTag, Element]:
    """Return the elements of the statement, the same for all objects; they replace those of an earlier one."""
    codes = []
    for value, meaning in method_codes(options):
        code = {CODE_VALUE: ("SH", value), SCHEME: ("SH", "DCM"), MEANING: ("LO", meaning)}
        codes.append(Dataset(_texts(implicit, little, code)))
        codes[-1].set_original_encoding(implicit, little, "iso8859")
    texts = {
        IDENTITY_REMOVED: ("CS", "YES"),
        METHOD: ("LO", f"{VERSION_NAME} PS3.15 E {EDITION}"),
        TEMPORAL_INFORMATION: ("CS", "MODIFIED" if options.dates == "shift" else "REMOVED"),
    }
    sequence = DataElement(METHOD_CODES, "SQ", Sequence(codes))
    return _texts(implicit, little, texts) | {sequence.tag: sequence}


def _texts(implicit: bool, little: bool, texts: dict[int, tuple[str, str]]) -> dict[BaseTag, Element]:
    raws = (
        make_raw(tag, vr, text.encode(), implicit=implicit, little=little)
        for tag, (vr, text) in texts.items()
    )
    return {raw.tag: raw for raw in raws}
