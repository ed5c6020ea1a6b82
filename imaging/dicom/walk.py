"""Owns the strict walk over a Part 10 file: attributes and the place of the pixel data, without parsing the rest.

It follows well-formed little-endian files alone. `walk` returns None on any doubt, and pydicom takes over; a
length that leaves the file is no doubt but truncation.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imaging.dicom.attributes import NUMBERS, Value, decode_numbers, decode_text, wanted
from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault

Buffer = bytes | bytearray | memoryview

MAGIC_AT = 128
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
TRANSFER_SYNTAX = 0x00020010
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a length of two bytes (PS3.5 7.1.2)."""
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
NEEDS_PYDICOM = frozenset(
    {0x00283000, 0x00283010, 0x00281101, 0x00281102, 0x00281103, 0x00281221, 0x52009229, 0x52009230}
    | {0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009}
)
"""Tables, palettes, functional groups, offset tables and floating-point pixels: right, but not simple."""

_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_IMPLICIT = struct.Struct("<HHI").unpack_from
_LENGTH = struct.Struct("<I").unpack_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """What a strict walk found: `pixels` are the (start, length) of the value or of each fragment in the buffer."""

    syntax: str
    attributes: dict[str, Value]
    header_end: int
    pixels: tuple[tuple[int, int], ...]
    encapsulated: bool
    simple: bool
    """Whether the attributes are all that the pixels need; else pydicom must read the header too."""


class _Doubt(Exception):
    """The file is not what the walk knows: pydicom decides."""


def walk(data: Buffer, size: int | None = None) -> Walked | None:
    """Walk over a file with its preamble, or return None where pydicom must.

    `data` may be the head of a file of `size` bytes: then the walk ends at the pixel data, and None is also the
    answer where the head is too short to reach them. Raises DataFault "truncated" or "too-deep".
    """
    size = len(data) if size is None else size
    try:
        if bytes(data[MAGIC_AT : MAGIC_AT + 4]) != b"DICM":
            return None
        syntax, start = _file_meta(data, size)
        if syntax in (DEFLATED, BIG_ENDIAN):
            return None
        walked = _data_set(data, syntax, start, size)
        return walked if walked.pixels or size == len(data) else None
    except (_Doubt, UnicodeDecodeError):
        return None
    except struct.error:
        if size > len(data):
            return None
        raise DataFault("truncated", f"the file ends inside an element, after {len(data)} bytes") from None


def _file_meta(data: Buffer, size: int) -> tuple[str, int]:
    """Return the transfer syntax and where the data set begins; group 2 is explicit little endian (PS3.10 7.1)."""
    at, syntax = MAGIC_AT + 4, ""
    while True:
        group, element, vr, length = _EXPLICIT(data, at)
        if group != 2:
            break
        value = at + 8
        if vr in LONG:
            value, length = at + 12, _LENGTH(data, at + 8)[0]
        elif vr not in SHORT:
            raise _Doubt
        at = _within(value, length, size)
        if element == TRANSFER_SYNTAX & 0xFFFF:
            syntax = decode_text(bytes(data[value:at]))
    if not syntax:
        raise _Doubt
    return syntax, at


def _data_set(data: Buffer, syntax: str, start: int, size: int) -> Walked:
    attributes: dict[str, Value] = {}
    pixels: tuple[tuple[int, int], ...] = ()
    encapsulated, simple, header_end, before = False, True, len(data), 0
    table, implicit = wanted(), syntax == IMPLICIT
    for tag, vr, value, length in _elements(data, start, size, implicit):
        if tag <= before:
            raise _Doubt
        before = tag
        if tag == PIXEL_DATA:
            encapsulated, header_end = length == UNDEFINED, value - (8 if implicit else 12)
            if size > len(data):
                # The head of a file alone: where the pixels begin is all that it can say.
                pixels = ((value, length),)
                break
            pixels = fragments(data, value) if encapsulated else ((value, length),)
        elif tag in table:
            keyword, expected = table[tag]
            found = _decode(data[value : value + length], keyword, vr or expected, expected, attributes)
            if found is not None:
                attributes[keyword] = found
        elif tag in NEEDS_PYDICOM:
            simple = False
    return Walked(
        syntax=syntax,
        attributes=attributes,
        header_end=header_end,
        pixels=pixels,
        encapsulated=encapsulated,
        simple=simple,
    )


def _decode(raw: Buffer, keyword: str, vr: str, expected: str, attributes: dict[str, Value]) -> Value | None:
    if expected == "US or SS":
        signed = attributes.get("PixelRepresentation") == (1.0,)
        expected = "SS" if signed else "US"
        vr = expected if vr in ("US or SS", "US", "SS") else vr
    if vr != expected:
        raise _Doubt
    value = bytes(raw)
    if keyword in NUMBERS:
        return decode_numbers(value, vr) if value.strip(b" \0") or (vr in ("US", "SS") and value) else None
    return decode_text(value) or None


def _elements(data: Buffer, at: int, size: int, implicit: bool) -> Iterator[tuple[int, str, int, int]]:
    """Yield tag, VR (empty where implicit), start and length of each value at the top level."""
    while at < size:
        if at < len(data) and not data[at] and not any(data[at:]):
            return  # zeros behind the data set: padding to a block of some medium
        if implicit:
            group, element, length = _IMPLICIT(data, at)
            vr, value = b"", at + 8
        else:
            group, element, vr, length = _EXPLICIT(data, at)
            value = at + 8
            if vr in LONG:
                value, length = at + 12, _LENGTH(data, at + 8)[0]
            elif vr not in SHORT:
                raise _Doubt
        tag = group << 16 | element
        if length == UNDEFINED and tag != PIXEL_DATA:
            if vr not in (b"SQ", b""):
                raise _Doubt
            at = skip_sequence(data, value, implicit)
        else:
            at = value + length
            if length == UNDEFINED:
                at = _end_of_fragments(data, value) if size == len(data) else size
            elif at > size:
                raise DataFault("truncated", f"an element has {length} bytes, {size - value} are left")
        yield tag, vr.decode(), value, length


def skip_sequence(data: Buffer, at: int, implicit: bool) -> int:
    """Return where a sequence of undefined length ends (PS3.5 7.5), without recursion.

    Raises DataFault "too-deep" where items lie in more sequences than a limit.
    """
    size, open_items = len(data), [False]  # for each open sequence: whether one of its items is open
    while open_items:
        if not open_items[-1]:
            group, element, length = _IMPLICIT(data, at)
            tag, at = group << 16 | element, at + 8
            if tag == SEQUENCE_END:
                open_items.pop()
            elif tag != ITEM:
                raise _Doubt
            elif length == UNDEFINED:
                open_items[-1] = True
            else:
                at = _within(at, length, size)
            continue
        at, tag, length = _nested(data, at, implicit)
        if tag == ITEM_END:
            open_items[-1] = False
        elif length == UNDEFINED:
            open_items.append(False)
            check_limit("too-deep", "the depth of sequences", len(open_items), LIMITS.depth)
        else:
            at = _within(at, length, size)
    return at


def _nested(data: Buffer, at: int, implicit: bool) -> tuple[int, int, int]:
    """Return where the value of an element inside an item begins, its tag and its length."""
    group, element, length = _IMPLICIT(data, at)
    tag = group << 16 | element
    if implicit or tag == ITEM_END:
        return at + 8, tag, length
    _, _, vr, short = _EXPLICIT(data, at)
    if vr in SHORT:
        return at + 8, tag, short
    if vr not in LONG:
        raise _Doubt
    length = _LENGTH(data, at + 8)[0]
    if length == UNDEFINED and vr != b"SQ":
        raise _Doubt
    return at + 12, tag, length


def fragments(data: Buffer, at: int) -> tuple[tuple[int, int], ...]:
    """Return start and length of the fragments, the Basic Offset Table first (PS3.5 A.4)."""
    size = len(data)
    found: list[tuple[int, int]] = []
    while True:
        group, element, length = _IMPLICIT(data, at)
        tag, at = group << 16 | element, at + 8
        if tag == SEQUENCE_END:
            return tuple(found)
        if tag != ITEM or length == UNDEFINED:
            raise _Doubt
        found.append((at, length))
        at = _within(at, length, size)


def _end_of_fragments(data: Buffer, at: int) -> int:
    found = fragments(data, at)
    start, length = found[-1] if found else (at, 0)
    return start + length + 8


def _within(start: int, length: int, size: int) -> int:
    end = start + length
    if end > size:
        raise DataFault("truncated", f"an element has {length} bytes, {max(size - start, 0)} are left")
    return end
