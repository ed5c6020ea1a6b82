"""Strict walk over a Part 10 file: its attributes and the place of its pixel data, without parsing the rest.

It follows only well-formed little-endian files. `walk` returns None on any doubt, and pydicom takes over; a length
that goes beyond the end of the file is no doubt but truncation.
"""

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial

from imaging.dicom.attributes import (
    ANY_FLOAT,
    OPAQUE,
    PLACED,
    TEXTS,
    VALUE_BYTES,
    Value,
    decode_numbers,
    decode_opaque,
    decode_places,
    decode_text,
    wanted,
)
from imaging.dicom.elements import (
    EXPLICIT_HEADER,
    IMPLICIT_HEADER,
    LONG,
    LONG_LENGTH,
    SHORT,
    UNDEFINED,
    Buffer,
    Doubt,
    fragments,
    iter_elements,
    skip_sequence,
    within,
)
from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault

MAGIC_AT = 128
META_TAGS = range(0x00020000, 0x00030000)
HEAD_BYTES = 2**15
"""Where most headers end. They are walked over as `bytes`, whose slices cost a third of a memoryview's."""
PIXEL_DATA = 0x7FE00010
PIXELS = {PIXEL_DATA: 0, 0x7FE00008: 32, 0x7FE00009: 64}
"""Pixel Data, Float and Double Float Pixel Data (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25): bits of a floating-point value."""
PIXEL_GROUP = 0x7FE0
"""Group of the tags of all pixel data."""
TAGS_BEHIND = range((PIXEL_GROUP + 1) << 16, 2**32)
TRANSFER_SYNTAX = 0x00020010
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
NEEDS_PYDICOM = frozenset(
    {0x00283000, 0x00283010, 0x00281101, 0x00281102, 0x00281103, 0x00281221, 0x52009229, 0x52009230}
    | {0x00281222, 0x00281223, 0x7FE00001, 0x7FE00002, 0x00540022, 0x00540080, 0x3004000C}
)
"""Tables, palettes, functional groups, offset tables and places of frames, which the walk does not read."""
ESCAPE = b"\x1b"
"""Begins characters of another set (PS3.5 6.1.2.5), which look like ASCII byte by byte."""
CACHED_VALUE_BYTES = 32
"""Longer values seldom occur twice."""
SIGNED_LIKE_PIXELS = frozenset({0x00280120, 0x00280121})
"""Padding, whose values are signed where the pixels are (PS3.3 C.7.5.1.1.2)."""

Spans = tuple[tuple[int, int], ...]
PixelPlace = tuple[int, int, int]
"""Tag, start of the value and length of the pixel data."""
RawValue = tuple[int, bytes, Buffer]
"""Tag, VR and bytes of an element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """Result of a strict walk: `pixels` are the (start, length) of the value, or of each fragment, in the buffer."""

    syntax: str
    attributes: dict[str, Value]
    header_end: int
    pixels: Spans
    encapsulated: bool
    floating_bits: int
    simple: bool
    """Whether the attributes are enough to read the pixels; else pydicom must read the header too."""


def walk(data: Buffer, size: int | None = None) -> Walked | None:
    """Return the header of a file with a preamble, up to its pixel data, or None where pydicom must read it.

    `data` may be the head of a file of `size` bytes: then the result is None too where the head is too short to
    reach the pixel data, and fragments are not looked for. Raises DataFault "truncated", "too-deep" or
    "too-many-elements".
    """
    if size is None and len(data) > HEAD_BYTES:
        walked = _walk(bytes(data[:HEAD_BYTES]), len(data), data)
        if walked is not None:
            return walked
    return _walk(data, len(data) if size is None else size, data if size is None else None)


def _walk(head: Buffer, size: int, whole: Buffer | None) -> Walked | None:
    """Return the header in the head of a file; fragments are looked for in the whole file."""
    try:
        if bytes(head[MAGIC_AT : MAGIC_AT + 4]) != b"DICM":
            return None
        syntax, start = _file_meta(head, size)
        if syntax in (DEFLATED, BIG_ENDIAN):
            return None
        raw_values, place, simple = _elements(head, start, size, implicit=syntax == IMPLICIT)
        if place is None and size > len(head):
            return None
        tag, value, length = place or (0, len(head), 0)
        if place and (length == UNDEFINED) == (syntax in (IMPLICIT, EXPLICIT)):
            raise Doubt
        spans = _spans(place, whole)
        if spans and whole is not None:
            behind = sum(spans[-1]) + (8 if length == UNDEFINED else 0)
            if is_out_of_place(whole, behind, implicit=syntax == IMPLICIT):
                raise Doubt
        return Walked(
            syntax=syntax,
            attributes=_decoded(raw_values),
            header_end=value - (8 if syntax == IMPLICIT else 12) if place else value,
            pixels=spans,
            encapsulated=length == UNDEFINED,
            floating_bits=PIXELS.get(tag, 0),
            simple=simple,
        )
    except (Doubt, UnicodeDecodeError):
        return None
    except struct.error:
        if size > len(head):
            return None
        raise DataFault("truncated", f"the file ends inside an element, after {size} bytes") from None


def is_out_of_place(data: Buffer, behind: int, *, implicit: bool) -> bool:
    """Return whether an element behind the pixel data is of their group or belongs before them: pydicom refuses most.

    It may also come behind elements that are in order there (PS3.5 7.1), as Data Set Trailing Padding is. Zeros are
    padding to a block of some medium.
    """
    group = int.from_bytes(data[behind : behind + 2], "little")
    if group > PIXEL_GROUP:
        # What cannot be followed is no element, and is left out as it was before.
        with suppress(DataFault, Doubt, struct.error):
            for *_, end in iter_elements(data, behind, len(data), implicit=implicit, tags=TAGS_BEHIND):
                behind = end
        group = int.from_bytes(data[behind : behind + 2], "little")
    return 0 < group <= PIXEL_GROUP


def _file_meta(data: Buffer, size: int) -> tuple[str, int]:
    """Return the transfer syntax and where the data set begins; group 2 is explicit little endian (PS3.10 7.1)."""
    start, syntax = MAGIC_AT + 4, ""
    for tag, _, value, end in iter_elements(data, start, size, implicit=False, tags=META_TAGS):
        if tag == TRANSFER_SYNTAX:
            syntax = decode_text(bytes(data[value:end]))
        start = end
    if not syntax:
        raise Doubt
    return syntax, start


def _elements(  # noqa: PLR0912
    data: Buffer, at: int, size: int, *, implicit: bool
) -> tuple[list[RawValue], PixelPlace | None, bool]:
    """Return the wanted elements, the place of the pixel data, and whether these are enough to read the pixels.

    One loop without calls: it runs a hundred times per file, and takes most of the time of reading a header.
    """
    raw_values: list[RawValue] = []
    codes, before, simple = _codes(), 0, True
    plain_end = min(size, UNDEFINED - 1)
    for _ in range(LIMITS.elements):
        if at >= size:
            break
        if implicit:
            group, element, length = IMPLICIT_HEADER(data, at)
            vr, value = b"", at + 8
        else:
            group, element, vr, length = EXPLICIT_HEADER(data, at)
            if vr in SHORT:
                value = at + 8
            elif vr in LONG:
                value, length = at + 12, LONG_LENGTH(data, at + 8)[0]
            else:
                break
        tag = group << 16 | element
        if tag <= before:
            break
        before, at = tag, value + length
        code = codes.get(tag)
        if code is None and at <= plain_end:
            continue
        if code == PIXEL:
            if length != UNDEFINED:
                within(value, length, size)
            return raw_values, (tag, value, length), simple
        if code == WANTED:
            raw_values.append((tag, vr, data[value:at]))
        elif code == NEEDED_BY_PYDICOM:
            simple = False
        if length == UNDEFINED:
            if vr not in (b"SQ", b"") or code == WANTED:
                raise Doubt
            at = skip_sequence(data, value, size, implicit)
        elif at > size:
            within(value, length, size)
    else:
        raise DataFault("too-many-elements", f"the number of elements is above {LIMITS.elements}")
    if at < size and _has_nonzero(data, at):
        raise Doubt  # zeros are padding to a block of some medium; anything else is for pydicom to judge
    return raw_values, None, simple


WANTED, NEEDED_BY_PYDICOM, PIXEL = 1, 2, 3


@cache
def _codes() -> Mapping[int, int]:
    """Return what the walk does with an element, by its tag; most tags are absent and skipped."""
    return {
        **dict.fromkeys(decoders(), WANTED),
        **dict.fromkeys(NEEDS_PYDICOM, NEEDED_BY_PYDICOM),
        **dict.fromkeys(PIXELS, PIXEL),
    }


def _has_nonzero(data: Buffer, at: int) -> bool:
    """Return whether a byte behind a place is not zero; block by block, as a file may be padded to gigabytes."""
    rest, zeros = memoryview(data)[at:], bytes(VALUE_BYTES)
    return any(
        rest[start : start + VALUE_BYTES] != zeros[: len(rest) - start]
        for start in range(0, len(rest), VALUE_BYTES)
    )


def _spans(place: PixelPlace | None, whole: Buffer | None) -> Spans:
    if place is None:
        return ()
    _, value, length = place
    return ((value, length),) if length != UNDEFINED or whole is None else fragments(whole, value)


Decoder = Callable[[bytes], Value]
SIGNED = partial(decode_numbers, vr="SS")


@cache
def decoders() -> Mapping[int, tuple[str, bytes, Decoder]]:
    """Return keyword, VR and decoder of each wanted attribute by its tag."""
    return {tag: (keyword, vr.encode(), _decoder(keyword, vr)) for tag, (keyword, vr) in wanted().items()}


def _decoder(keyword: str, vr: str) -> Decoder:
    if keyword in OPAQUE:
        return decode_opaque
    if keyword in TEXTS:
        return decode_text
    if keyword in PLACED:
        return decode_places
    if vr in ("US", "US or SS"):
        return _unsigned
    return partial(decode_numbers, vr=vr, finite=keyword not in ANY_FLOAT)


def _decoded(raw_values: list[RawValue]) -> dict[str, Value]:
    """Return values by keyword; raise Doubt for an element of another VR than the dictionary's."""
    attributes: dict[str, Value] = {}
    for tag, vr, value in raw_values:
        signed = tag in SIGNED_LIKE_PIXELS and attributes.get("PixelRepresentation") == (1.0,)
        if len(value) <= CACHED_VALUE_BYTES:
            # Slices of a series share most of their short values, and different series many.
            keyword, decoded = _cached_entry(tag, vr, bytes(value), signed)
        else:
            keyword, decoded = _entry(tag, vr, bytes(value[: VALUE_BYTES + 1]), signed)
        if decoded is not None:
            attributes[keyword] = decoded
    return attributes


def _entry(tag: int, vr: bytes, raw: bytes, signed: bool) -> tuple[str, Value | None]:
    """Return the keyword and value of an element: None where it is empty, the empty tuple where it is no number."""
    keyword, expected, decode = decoders()[tag]
    if expected == b"US or SS":
        expected, decode = vr, SIGNED if signed else _unsigned
    if (vr and vr != expected) or len(raw) > VALUE_BYTES:
        raise Doubt
    if decode is decode_text and ESCAPE in raw:
        raise Doubt
    if decode is decode_text or expected in (b"DS", b"IS"):
        raw = raw.strip(b" \0")
    decoded = decode(raw) if raw else None
    return keyword, None if decoded == "" else decoded


_cached_entry = lru_cache(4096)(_entry)


def _unsigned(raw: bytes) -> Value:
    # Most are one number of two bytes, for which this takes a fifth of the time.
    return (float(raw[0] | raw[1] << 8),) if len(raw) == 2 else decode_numbers(raw, "US")
