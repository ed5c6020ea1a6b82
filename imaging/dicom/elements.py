"""Owns the shapes of elements in a data set: the codes of their headers, sequences, items and fragments."""

import struct

from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault

Buffer = bytes | bytearray | memoryview

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a length of two bytes (PS3.5 7.1.2)."""
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())

EXPLICIT_HEADER = struct.Struct("<HH2sH").unpack_from
IMPLICIT_HEADER = struct.Struct("<HHI").unpack_from
LONG_LENGTH = struct.Struct("<I").unpack_from


class Doubt(Exception):
    """The file is not what the strict walk knows: pydicom decides."""


def skip_sequence(data: Buffer, at: int, size: int, implicit: bool) -> int:
    """Return where a sequence of undefined length ends (PS3.5 7.5) in a file of `size`, without recursion.

    Raises DataFault "too-deep" or "too-many-elements" at a limit.
    """
    open_items, count = [False], 0  # for each open sequence: whether one of its items is open
    while open_items:
        count += 1
        if count > LIMITS.elements:
            check_limit("too-many-elements", "the number of elements", count, LIMITS.elements)
        if not open_items[-1]:
            group, element, length = IMPLICIT_HEADER(data, at)
            tag, at = group << 16 | element, at + 8
            if tag == SEQUENCE_END:
                open_items.pop()
            elif tag != ITEM:
                raise Doubt
            elif length == UNDEFINED:
                open_items[-1] = True
            else:
                at = within(at, length, size)
            continue
        at, tag, length = _nested(data, at, implicit)
        if tag == ITEM_END:
            open_items[-1] = False
        elif length == UNDEFINED:
            open_items.append(False)
            check_limit("too-deep", "the depth of sequences", len(open_items), LIMITS.depth)
        else:
            at = within(at, length, size)
    return at


def _nested(data: Buffer, at: int, implicit: bool) -> tuple[int, int, int]:
    """Return where the value of an element inside an item begins, its tag and its length."""
    group, element, length = IMPLICIT_HEADER(data, at)
    tag = group << 16 | element
    if implicit or tag == ITEM_END:
        return at + 8, tag, length
    _, _, vr, short = EXPLICIT_HEADER(data, at)
    if vr in SHORT:
        return at + 8, tag, short
    if vr not in LONG:
        raise Doubt
    length = LONG_LENGTH(data, at + 8)[0]
    if length == UNDEFINED and vr != b"SQ":
        raise Doubt
    return at + 12, tag, length


def fragments(data: Buffer, at: int) -> tuple[tuple[int, int], ...]:
    """Return start and length of the fragments, the Basic Offset Table first (PS3.5 A.4).

    Raises DataFault "truncated" or "too-many-elements", Doubt where something else stands between them, and
    struct.error where the data end.
    """
    size = len(data)
    found: list[tuple[int, int]] = []
    while True:
        group, element, length = IMPLICIT_HEADER(data, at)
        tag, at = group << 16 | element, at + 8
        if tag == SEQUENCE_END:
            return tuple(found)
        if tag != ITEM or length == UNDEFINED:
            raise Doubt
        found.append((at, length))
        at = within(at, length, size)
        if len(found) > LIMITS.elements:
            check_limit("too-many-elements", "the number of fragments", len(found), LIMITS.elements)


def within(start: int, length: int, size: int) -> int:
    """Return where a value ends; raise DataFault "truncated" where that is behind the end of the file."""
    end = start + length
    if end > size:
        raise DataFault("truncated", f"an element has {length} bytes, {max(size - start, 0)} are left")
    return end
