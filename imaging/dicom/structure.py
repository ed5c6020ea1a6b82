"""Owns the count of elements and of the depth of sequences, taken before pydicom makes objects of them."""

import struct

from pydicom._dicom_dict import DicomDictionary

from imaging.dicom.elements import ITEM, ITEM_END, LONG, SEQUENCE_END, SHORT, UNDEFINED, Buffer
from imaging.dicom.limits import LIMITS, check_limit

DELIMITERS = (ITEM, ITEM_END, SEQUENCE_END)


def check_structure(data: Buffer, start: int, *, implicit: bool, little: bool) -> None:
    """Raise DataFault "too-deep" or "too-many-elements"; what cannot be followed is left for pydicom to refuse.

    1,000 sequences in one another end Python's stack, and a million elements take gigabytes as objects.
    """
    order = "<" if little else ">"
    at, size, count = start, len(data), 0
    ends: list[int] = []  # where each open sequence or item ends; -1 where a delimiter says so
    try:
        while at < size:
            while ends and ends[-1] != -1 and at >= ends[-1]:
                ends.pop()
            tag, vr, length, at = _header(data, at, order, implicit)
            count += 1
            check_limit("too-many-elements", "the number of elements", count, LIMITS.elements)
            if tag in (ITEM_END, SEQUENCE_END):
                if ends:
                    ends.pop()
            elif tag == ITEM or vr == b"SQ" or length == UNDEFINED:
                ends.append(-1 if length == UNDEFINED else at + length)
                # An item lies in each sequence: two steps are one level.
                check_limit("too-deep", "the depth of sequences", len(ends) // 2, LIMITS.depth)
            else:
                at += length
    except (struct.error, ValueError):
        return


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
