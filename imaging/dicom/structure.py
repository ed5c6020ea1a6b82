"""Owns the count of elements and of the depth of sequences, taken before pydicom makes objects of them."""

import struct
from dataclasses import dataclass

from pydicom._dicom_dict import DicomDictionary

from imaging.dicom.elements import ITEM, ITEM_END, LONG, SEQUENCE_END, SHORT, UNDEFINED, Buffer
from imaging.dicom.limits import LIMITS, check_limit

DELIMITERS = (ITEM, ITEM_END, SEQUENCE_END)
SEQUENCES = (b"SQ", b"UN", b"")
"""VRs that items with elements may lie in; those in others, of undefined length, are fragments of pixels."""


@dataclass(frozen=True, slots=True)
class Level:
    """An open sequence or item: where it ends, if it says so, and what lies in it."""

    end: int | None
    implicit: bool
    fragments: bool = False


def check_structure(data: Buffer, start: int, *, implicit: bool, little: bool) -> None:
    """Raise DataFault "too-deep" or "too-many-elements"; what cannot be followed is left for pydicom to refuse.

    1,000 sequences in one another end Python's stack, and a million elements take gigabytes as objects.
    """
    order, at, count = "<" if little else ">", start, 0
    levels = [Level(None, _looks_implicit(data, start, implicit))]
    try:
        while at < len(data):
            while (end := levels[-1].end) is not None and at >= end:
                levels.pop()
            tag, vr, length, at = _header(data, at, order, levels[-1].implicit)
            count += 1
            if count > LIMITS.elements:
                check_limit("too-many-elements", "the number of elements", count, LIMITS.elements)
            if tag in (ITEM_END, SEQUENCE_END):
                levels = levels[:-1] or levels
                continue
            inner = _opens(tag, vr, length, at, levels[-1])
            if inner is None:
                at += length
                continue
            levels.append(inner)
            # An item lies in each sequence: two steps are one level, and the data set is the first.
            check_limit("too-deep", "the depth of sequences", len(levels) // 2, LIMITS.depth)
    except (struct.error, ValueError):
        return


def _looks_implicit(data: Buffer, start: int, assumed: bool) -> bool:
    """Tell the form as pydicom does, which trusts the first element more than the transfer syntax."""
    vr = bytes(data[start + 4 : start + 6])
    return not (vr.isalpha() and vr.isupper()) if len(vr) == 2 else assumed


def _opens(tag: int, vr: bytes, length: int, at: int, around: Level) -> Level | None:
    """Return the sequence or item that begins with an element, or None where its value is to be stepped over."""
    end = None if length == UNDEFINED else at + length
    if tag == ITEM:
        return None if around.fragments else Level(end, around.implicit)
    if vr != b"SQ" and end is not None:
        return None
    # A sequence of unknown VR has its items in implicit form (PS3.5 6.2.2, note 2).
    return Level(end, around.implicit or vr == b"UN", vr not in SEQUENCES)


def _header(data: Buffer, at: int, order: str, implicit: bool) -> tuple[int, bytes, int, int]:
    """Return tag, VR, length and start of the value of one element."""
    group, element = struct.unpack_from(f"{order}HH", data, at)
    tag = group << 16 | element
    if implicit or tag in DELIMITERS:
        length = struct.unpack_from(f"{order}I", data, at + 4)[0]
        known = DicomDictionary.get(tag)
        return tag, known[0].encode() if known and tag not in DELIMITERS else b"", length, at + 8
    vr = bytes(data[at + 4 : at + 6])
    if vr in SHORT:
        return tag, vr, struct.unpack_from(f"{order}H", data, at + 6)[0], at + 8
    if vr not in LONG:
        raise ValueError
    return tag, vr, struct.unpack_from(f"{order}I", data, at + 8)[0], at + 12
