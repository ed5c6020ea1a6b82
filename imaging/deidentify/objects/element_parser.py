"""Element parser for plain little-endian files: the bytes of each element, without parsing their values.

Where a file is unusual in any way nothing is returned, and pydicom parses it.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MediaStorageDirectoryStorage

from imaging.deidentify.identity.identifier_kinds import vr_of
from imaging.deidentify.identity.identifiers import ITEMS
from imaging.dicom.elements import (
    EXPLICIT_HEADER,
    IMPLICIT_HEADER,
    LONG,
    LONG_LENGTH,
    SHORT,
    UNDEFINED,
    Buffer,
    Doubt,
    skip_sequence,
)
from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault

FIRST_AT, MAGIC = 132, b"DICM"
HEAD_BYTES = 2**16
"""A longer header is not that of a plain slice; fewer elements than any limit fit into it."""
META_TAGS, DATA_SET_TAGS = range(0x00020000, 0x00030000), range(0x00080000, 0x7FE00008)
PIXEL_DATA, SYNTAX, STORED_CLASS = 0x7FE00010, 0x00020010, 0x00020002
VRS = {vr: vr.decode() for vr in SHORT | LONG}
SYNTAXES = {str(uid).encode(): uid for uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)}
KNOWN_TAGS = 2**15
Header = tuple[int, str | None, int, int]
"""Tag, VR, start of the value and its length."""


class ElementBytes(NamedTuple):
    """All bytes of an element, and where its value begins in them; `vr` is None where the file has none."""

    tag: int
    vr: str | None
    whole: bytes
    value_at: int
    is_open: bool

    def value(self) -> bytes:
        """Return the value; of a sequence of undefined length the items."""
        return self.whole[self.value_at : len(self.whole) - 8 * self.is_open]

    def raw(self, *, implicit: bool) -> RawDataElement:
        """Return the element as pydicom reads it; one of undefined length as if it had a length."""
        value = self.value() or (b"" if empty_value_for_VR(self.vr, raw=True) is not None else None)
        return RawDataElement(_key(self.tag), self.vr, len(value or b""), value, 0, implicit, True)

    def may_contain_elements(self) -> bool:
        """Tell whether a sequence is in the element, or might be."""
        if self.is_open or self.vr == "SQ":
            return True
        is_unknown = self.vr is None or self.vr == "UN"
        return is_unknown and (vr_of(self.tag) == "SQ" or self.whole.startswith(ITEMS, self.value_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """Elements of the file meta group and of the data set, by ascending tags; VR and value of native pixel data."""

    syntax: UID
    meta: list[ElementBytes]
    elements: list[ElementBytes]
    pixels: tuple[str | None, memoryview] | None

    @property
    def implicit(self) -> bool:
        """Tell whether the data set has no VRs."""
        return bool(self.syntax == ImplicitVRLittleEndian)


def parse_elements(data: Buffer, previous: ParsedFile | None = None) -> ParsedFile | None:
    """Return the elements of a native file up to its end, or None where anything is unusual.

    Elements of the `previous` file with equal bytes are taken from it, which is faster.
    """
    try:
        return _parsed(data, bytes(data[:HEAD_BYTES]), previous)
    except (Doubt, DataFault, struct.error):
        return None


def _parsed(data: Buffer, head: bytes, previous: ParsedFile | None) -> ParsedFile:
    if head[FIRST_AT - 4 : FIRST_AT] != MAGIC or len(data) > LIMITS.parsed_bytes:
        raise Doubt
    meta, at, _ = _elements(head, FIRST_AT, previous.meta if previous else [], META_TAGS, implicit=False)
    syntax = _syntax({element.tag: element for element in meta})
    implicit = syntax == ImplicitVRLittleEndian
    if implicit and all(0x40 < code < 0x5B for code in head[at + 4 : at + 6]):
        raise Doubt  # pydicom takes it for explicit
    alike = previous.elements if previous and previous.syntax == syntax else []
    elements, at, (tag, vr, value, length) = _elements(head, at, alike, DATA_SET_TAGS, implicit=implicit)
    pixels = None
    if at < len(data):
        is_native = tag == PIXEL_DATA and vr in (None, "OB", "OW") and length and not length % 2
        if not is_native or value + length != len(data):
            raise Doubt
        pixels = vr, memoryview(data)[value:]
    return ParsedFile(syntax=syntax, meta=meta, elements=elements, pixels=pixels)


def _syntax(meta: dict[int, ElementBytes]) -> UID:
    syntax, kind = meta.get(SYNTAX), meta.get(STORED_CLASS)
    value = syntax.value().rstrip(b"\0") if syntax else b""
    if syntax is None or syntax.vr != "UI" or value not in SYNTAXES:
        raise Doubt
    if kind and (kind.vr != "UI" or MediaStorageDirectoryStorage.encode() in kind.whole):
        raise Doubt
    return SYNTAXES[value]


def _elements(
    head: bytes, at: int, previous: list[ElementBytes], tags: range, *, implicit: bool
) -> tuple[list[ElementBytes], int, Header]:
    """Return the elements of a range of tags, where the next one begins, and its header, empty at the end."""
    elements: list[ElementBytes] = []
    following: Header = (0, None, 0, 0)
    before, stop, size, rest = tags.start - 1, tags.stop, len(head), iter(previous)
    other = next(rest, None)
    starts_with, append = head.startswith, elements.append
    while at < size:
        # The bytes of an element say where it ends, so that equal bytes are an equal element.
        if other is not None and starts_with(whole := other.whole, at):
            append(other)
            before = other.tag
            at += len(whole)
            other = next(rest, None)
            continue
        if implicit:
            group, element, length = IMPLICIT_HEADER(head, at)
            vr, value = None, at + 8
        else:
            group, element, code, length = EXPLICIT_HEADER(head, at)
            vr, value = VRS.get(code), at + 8
            if code not in SHORT:
                value, length = at + 12, LONG_LENGTH(head, at + 8)[0]
        tag = group << 16 | element
        if tag >= stop:
            following = tag, vr, value, length
            break
        if tag <= before or not (implicit or vr):
            raise Doubt
        end, is_open = value + length, length == UNDEFINED
        if is_open:
            vr, end = "SQ", _sequence_end(head, tag, vr, value, implicit)
        if end > size:
            raise Doubt
        append(ElementBytes(tag, vr, head[at:end], value - at, is_open))
        before, at = tag, end
        while other is not None and other.tag <= tag:
            other = next(rest, None)
    return elements, at, following


def _sequence_end(head: bytes, tag: int, vr: str | None, at: int, implicit: bool) -> int:
    """Return where an element of undefined length ends, which must be a sequence beyond doubt."""
    known = _dictionary_vr(tag) if vr is None else vr
    if head[at : at + 4] != ITEMS[0] or known not in (None, "SQ"):
        raise Doubt
    return skip_sequence(head, at, len(head), implicit)


@lru_cache(KNOWN_TAGS)
def _dictionary_vr(tag: int) -> str | None:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None


_key = lru_cache(KNOWN_TAGS)(BaseTag)
