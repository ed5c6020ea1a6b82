"""Elements of a DICOM data set (PS3.5 7): headers, iteration, and the ends of sequences and fragments."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault

Buffer = bytes | bytearray | memoryview

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a length of two bytes (PS3.5 7.1.2)."""
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())

Unpack = Callable[[Buffer, int], tuple[Any, ...]]
EXPLICIT_HEADER: Unpack = struct.Struct("<HH2sH").unpack_from
IMPLICIT_HEADER: Unpack = struct.Struct("<HHI").unpack_from
LONG_LENGTH: Unpack = struct.Struct("<I").unpack_from


class Doubt(Exception):
    """The file is not as simple as the strict walk expects: pydicom decides."""


def iter_elements(
    data: Buffer, at: int, size: int, *, implicit: bool, tags: range
) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, length, start of the value, and end of the elements from a place in a file of `size` on.

    Elements inside of sequences are skipped. It stops before the first element whose tag is not in `tags`. Raises
    Doubt for an unknown VR, DataFault as `skip_sequence` does, and struct.error where the data end.
    """
    while at < size:
        # Inline, as in the loop of `imaging.dicom.walk`: a call for each header takes as long as the rest.
        if implicit:
            group, element, length = IMPLICIT_HEADER(data, at)
        else:
            group, element, vr, length = EXPLICIT_HEADER(data, at)
        tag, value = group << 16 | element, at + 8
        if tag not in tags:
            return
        if not implicit:
            if vr in LONG:
                length, value = LONG_LENGTH(data, value)[0], at + 12
            elif vr not in SHORT:
                raise Doubt
        at = value + length
        if length == UNDEFINED:
            at = skip_sequence(data, value, size, implicit)
        elif at > size:
            within(value, length, size)
        yield tag, length, value, at


def explicit_header(
    data: Buffer, at: int, header: Unpack = EXPLICIT_HEADER, long_length: Unpack = LONG_LENGTH
) -> tuple[bytes, int, int]:
    """Return VR, length and start of the value of an element in explicit form (PS3.5 7.1.2).

    Raises Doubt for an unknown VR and struct.error where the data end.
    """
    _, _, vr, length = header(data, at)
    if vr in SHORT:
        return vr, length, at + 8
    if vr not in LONG:
        raise Doubt
    return vr, long_length(data, at + 8)[0], at + 12


def skip_sequence(data: Buffer, at: int, size: int, implicit: bool) -> int:
    """Return where a sequence of undefined length ends (PS3.5 7.5) in a file of `size`, without recursion.

    Raises DataFault "truncated", and "too-deep" or "too-many-elements" at a limit; Doubt and struct.error as
    `iter_elements` does.
    """
    open_items = [False]  # for each open sequence: whether one of its items is open
    for _ in range(LIMITS.elements):
        group, element, length = IMPLICIT_HEADER(data, at)
        tag = group << 16 | element
        at += 8
        if open_items[-1] and tag != ITEM_END:
            vr = b"SQ"
            if not implicit:
                vr, length, at = explicit_header(data, at - 8)
            if length != UNDEFINED:
                at = within(at, length, size)
            elif vr == b"SQ":
                open_items.append(False)
                check_limit("too-deep", "the depth of sequences", len(open_items), LIMITS.depth)
            else:
                raise Doubt
        elif open_items[-1]:
            open_items[-1] = False
        elif tag == SEQUENCE_END:
            open_items.pop()
            if not open_items:
                return at
        elif tag != ITEM:
            raise Doubt
        elif length == UNDEFINED:
            open_items[-1] = True
        else:
            at = within(at, length, size)
    raise DataFault(
        "too-many-elements",
        f"the number of elements is {LIMITS.elements + 1}, the limit is {LIMITS.elements}",
    )


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
