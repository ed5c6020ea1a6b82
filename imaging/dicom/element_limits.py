"""Limits on the number of elements and the depth of sequences, checked before pydicom makes objects of them."""

import struct
from dataclasses import dataclass

from pydicom._dicom_dict import DicomDictionary

from imaging.dicom.elements import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Buffer, Doubt, explicit_header
from imaging.dicom.limits import LIMITS, check_limit

DELIMITERS = (ITEM, ITEM_END, SEQUENCE_END)
SEQUENCES = (b"SQ", b"UN", b"")
"""VRs whose items hold elements; the items of others, of undefined length, are fragments of pixels."""


@dataclass(frozen=True, slots=True)
class Level:
    """An open sequence or item: where it ends, None where its length is undefined, and what is in it."""

    end: int | None
    implicit: bool
    fragments: bool = False


def check_element_limits(data: Buffer, start: int, *, implicit: bool, little: bool) -> None:
    """Raise DataFault "too-deep" or "too-many-elements"; what cannot be followed is left for pydicom to refuse.

    1,000 nested sequences overflow Python's stack, and a million elements take gigabytes as objects.
    """
    order = "<" if little else ">"
    explicit, plain, long_length = (struct.Struct(order + code).unpack_from for code in ("HH2sH", "HHI", "I"))
    at, count = start, 0
    levels = [Level(None, _looks_implicit(data, start, implicit))]
    try:
        while at < len(data):
            while (end := levels[-1].end) is not None and at >= end:
                levels.pop()
            group, element, length = plain(data, at)
            tag = group << 16 | element
            if levels[-1].implicit or tag in DELIMITERS:
                vr, at = b"", at + 8
            else:
                vr, length, at = explicit_header(data, at, explicit, long_length)
            count += 1
            if count > LIMITS.elements:
                check_limit("too-many-elements", "the number of elements", count, LIMITS.elements)
            if tag in (ITEM_END, SEQUENCE_END):
                levels = levels[:-1] or levels
                continue
            inner = _opened_level(tag, vr, length, at, levels[-1])
            if inner is None:
                at += length
                continue
            levels.append(inner)
            # An item lies in each sequence: two steps are one level, and the data set is the first.
            check_limit("too-deep", "the depth of sequences", len(levels) // 2, LIMITS.depth)
    except (struct.error, Doubt):
        return


def _looks_implicit(data: Buffer, start: int, assumed: bool) -> bool:
    """Return whether the form is implicit, decided as pydicom does: by the first element, not the transfer syntax."""
    vr = bytes(data[start + 4 : start + 6])
    return not (vr.isalpha() and vr.isupper()) if len(vr) == 2 else assumed


def _opened_level(tag: int, vr: bytes, length: int, at: int, around: Level) -> Level | None:
    """Return the sequence or item that begins with an element, or None where its value is to be skipped."""
    end = None if length == UNDEFINED else at + length
    if tag == ITEM:
        return None if around.fragments else Level(end, around.implicit)
    if around.implicit and (entry := DicomDictionary.get(tag)):
        vr = entry[0].encode()
    if vr != b"SQ" and end is not None:
        return None
    # A sequence of unknown VR has its items in implicit form (PS3.5 6.2.2, note 2).
    return Level(end, around.implicit or vr == b"UN", vr not in SEQUENCES)
