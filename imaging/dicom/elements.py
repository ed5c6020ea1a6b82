"""Elements of a DICOM data set (PS3.5 7): headers, iteration, and the ends of sequences and fragments."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault

Buffer = bytes | bytearray | memoryview

UNDEFINED = 0xFFFFFFFF
ITEM_GROUP = 0xFFFE
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a length of two bytes (PS3.5 7.1.2)."""
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())

EXPLICIT_HEADER = struct.Struct("<HH2sH").unpack_from
IMPLICIT_HEADER = struct.Struct("<HHI").unpack_from
LONG_LENGTH = struct.Struct("<I").unpack_from
BIG_ENDIAN_HEADER = tuple(struct.Struct(code).unpack_from for code in (">HH2sH", ">HHI", ">I"))
ALL_TAGS = range(2**32)


class Doubt(Exception):
    """The file is not as simple as the strict walk expects: pydicom decides."""


class Element(NamedTuple):
    """Where an element lies: it ends at `end`, its value begins at `value`, `vr` is empty in implicit form."""

    tag: int
    vr: bytes
    length: int
    value: int
    end: int


def iter_elements(
    data: Buffer, at: int, size: int, *, implicit: bool, tags: range = ALL_TAGS
) -> Iterator[Element]:
    """Yield the elements from a place in a file of `size` on, without those inside of sequences.

    It stops before the first element whose tag is not in `tags`. Raises as `element_header` and `skip_sequence` do,
    and DataFault "truncated". The loop of `imaging.dicom.walk` does the same without calls, for speed.
    """
    while at < size and tag_at(data, at) in tags:
        tag, vr, length, value = element_header(data, at, implicit=implicit)
        at = (
            skip_sequence(data, value, size, implicit) if length == UNDEFINED else within(value, length, size)
        )
        yield Element(tag, vr, length, value, at)


def tag_at(data: Buffer, at: int) -> int:
    """Return the tag of the element at a place of a little-endian file."""
    group, element, _ = IMPLICIT_HEADER(data, at)
    return int(group << 16 | element)


def element_header(
    data: Buffer, at: int, *, implicit: bool, little: bool = True
) -> tuple[int, bytes, int, int]:
    """Return tag, VR, length and start of the value of the element at a place (PS3.5 7.1).

    The VR is empty in implicit form, and of items and their delimiters. Raises Doubt for an unknown VR and
    struct.error where the data end.
    """
    explicit_header, implicit_header, long_length = (
        (EXPLICIT_HEADER, IMPLICIT_HEADER, LONG_LENGTH) if little else BIG_ENDIAN_HEADER
    )
    group, element, length = implicit_header(data, at)
    tag = group << 16 | element
    if implicit or group == ITEM_GROUP:
        return tag, b"", length, at + 8
    _, _, vr, short = explicit_header(data, at)
    if vr in SHORT:
        return tag, vr, short, at + 8
    if vr not in LONG:
        raise Doubt
    return tag, vr, long_length(data, at + 8)[0], at + 12


def skip_sequence(data: Buffer, at: int, size: int, implicit: bool) -> int:
    """Return where a sequence of undefined length ends (PS3.5 7.5) in a file of `size`, without recursion.

    Raises DataFault "too-deep" or "too-many-elements" at a limit.
    """
    open_items, count = [False], 0  # for each open sequence: whether one of its items is open
    while open_items:
        count += 1
        if count > LIMITS.elements:
            check_limit("too-many-elements", "the number of elements", count, LIMITS.elements)
        tag, vr, length, at = element_header(data, at, implicit=implicit)
        if not open_items[-1]:
            if tag == SEQUENCE_END:
                open_items.pop()
            elif tag != ITEM:
                raise Doubt
            elif length == UNDEFINED:
                open_items[-1] = True
            else:
                at = within(at, length, size)
        elif tag == ITEM_END:
            open_items[-1] = False
        elif tag in (ITEM, SEQUENCE_END) or (length == UNDEFINED and vr not in (b"SQ", b"")):
            raise Doubt
        elif length == UNDEFINED:
            open_items.append(False)
            check_limit("too-deep", "the depth of sequences", len(open_items), LIMITS.depth)
        else:
            at = within(at, length, size)
    return at


def fragments(data: Buffer, at: int) -> tuple[tuple[int, int], ...]:
    """Return start and length of the fragments, the Basic Offset Table first (PS3.5 A.4).

    Raises DataFault "truncated" or "too-many-elements", Doubt where something else is between them, and
    struct.error where the data end.
    """
    size = len(data)
    spans: list[tuple[int, int]] = []
    while True:
        group, element, length = IMPLICIT_HEADER(data, at)
        tag, at = group << 16 | element, at + 8
        if tag == SEQUENCE_END:
            return tuple(spans)
        if tag != ITEM or length == UNDEFINED:
            raise Doubt
        spans.append((at, length))
        at = within(at, length, size)
        if len(spans) > LIMITS.elements:
            check_limit("too-many-elements", "the number of fragments", len(spans), LIMITS.elements)


def within(start: int, length: int, size: int) -> int:
    """Return where a value ends; raise DataFault "truncated" where that is behind the end of the file."""
    end = start + length
    if end > size:
        raise DataFault("truncated", f"an element has {length} bytes, {max(size - start, 0)} are left")
    return end
