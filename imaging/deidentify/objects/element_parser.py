"""Element parser for plain little-endian files: the bytes of each element, and a data set made of them.

On any doubt there is no split, and pydicom parses the file.
"""

import struct
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MediaStorageDirectoryStorage

from imaging.deidentify.objects.raw_elements import Element
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
"""A longer header is no plain slice's; fewer elements than any limit fit into it."""
META_GROUP, FIRST, LAST = 0x0002, 0x00080000, 0x7FE00007
PIXEL_DATA, SYNTAX, STORED_CLASS = 0x7FE00010, 0x00020010, 0x00020002
ITEM_BEGINS = b"\xfe\xff\x00\xe0"
VRS = {vr: vr.decode() for vr in SHORT | LONG}
SYNTAXES = {str(uid).encode(): uid for uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)}


class ElementBytes(NamedTuple):
    """An element: all its bytes, and where its value lies in them; `vr` is None where the file says none."""

    tag: int
    vr: str | None
    whole: bytes
    value_at: int
    is_open: bool

    def value(self) -> bytes:
        """Return the value; of a sequence of undefined length the items."""
        return self.whole[self.value_at : len(self.whole) - 8 * self.is_open]


class NativePixels(NamedTuple):
    """The value of native pixel data, which is not copied from the file."""

    vr: str | None
    value: Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """The elements of the file meta group and of the data set, in the order of their tags; the pixel data apart."""

    syntax: UID
    meta: list[ElementBytes]
    pieces: list[ElementBytes]
    pixels: NativePixels | None

    @property
    def implicit(self) -> bool:
        """Tell whether the data set has no VRs."""
        return bool(self.syntax == ImplicitVRLittleEndian)


def parse_elements(data: Buffer, like: ParsedFile | None = None) -> ParsedFile | None:
    """Return the elements of a native file up to its end, or None where anything is unusual.

    `like` is the split of a file that may share elements with this one: those are taken from it, which is faster.
    """
    try:
        return _parse(data, bytes(data[:HEAD_BYTES]), like)
    except (Doubt, DataFault, struct.error):
        return None


def _parse(data: Buffer, head: bytes, like: ParsedFile | None) -> ParsedFile:
    if head[FIRST_AT - 4 : FIRST_AT] != MAGIC or len(data) > LIMITS.parsed_bytes:
        raise Doubt
    meta, at = _elements(
        head,
        FIRST_AT,
        like.meta if like else [],
        implicit=False,
        first=META_GROUP << 16,
        last=META_GROUP << 16 | 0xFFFF,
    )
    syntax = _syntax({piece.tag: piece for piece in meta})
    implicit = syntax == ImplicitVRLittleEndian
    if implicit and all(0x40 < code < 0x5B for code in head[at + 4 : at + 6]):
        raise Doubt  # pydicom takes it for explicit
    alike = like.pieces if like and like.syntax == syntax else []
    pieces, at = _elements(head, at, alike, implicit=implicit, first=FIRST, last=LAST)
    return ParsedFile(
        syntax=syntax, meta=meta, pieces=pieces, pixels=_pixels(data, head, at, implicit=implicit)
    )


def _syntax(meta: dict[int, ElementBytes]) -> UID:
    syntax, kind = meta.get(SYNTAX), meta.get(STORED_CLASS)
    value = syntax.value().rstrip(b"\0") if syntax else b""
    if syntax is None or syntax.vr != "UI" or value not in SYNTAXES:
        raise Doubt
    if kind and (kind.vr != "UI" or MediaStorageDirectoryStorage.encode() in kind.whole):
        raise Doubt
    return SYNTAXES[value]


def _elements(
    head: bytes, at: int, like: list[ElementBytes], *, implicit: bool, first: int, last: int
) -> tuple[list[ElementBytes], int]:
    """Return the elements of a range of tags, and where the next one begins."""
    found: list[ElementBytes] = []
    before, size, rest = first - 1, len(head), iter(like)
    other = next(rest, None)
    while at < size:
        # The bytes of an element say where it ends, so that equal bytes are an equal element.
        if other is not None and head.startswith(other.whole, at):
            found.append(other)
            before, at, other = other.tag, at + len(other.whole), next(rest, None)
            continue
        if implicit:
            group, element, length = IMPLICIT_HEADER(head, at)
            vr, value = None, at + 8
        else:
            group, element, code, length = EXPLICIT_HEADER(head, at)
            vr, value = VRS.get(code), at + 8
            if code in LONG:
                value, length = at + 12, LONG_LENGTH(head, at + 8)[0]
        tag = group << 16 | element
        if tag > last:
            break
        if tag <= before or not (implicit or vr):
            raise Doubt
        before, end, is_open = tag, value + length, length == UNDEFINED
        if is_open:
            vr, end = _open_vr(tag, vr, head[value : value + 4]), skip_sequence(head, value, size, implicit)
        if end > size:
            raise Doubt
        found.append(ElementBytes(tag, vr, head[at:end], value - at, is_open))
        at = end
        while other is not None and other.tag <= tag:
            other = next(rest, None)
    return found, at


def _open_vr(tag: int, vr: str | None, begin: bytes) -> str:
    """Return the VR of an element of undefined length, which must be a sequence beyond doubt."""
    known = _known_vr(tag)
    if begin != ITEM_BEGINS or vr not in (None, "SQ") or (vr is None and known not in (None, "SQ")):
        raise Doubt
    return "SQ"


@cache
def _known_vr(tag: int) -> str | None:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None


def _pixels(data: Buffer, head: bytes, at: int, *, implicit: bool) -> NativePixels | None:
    """Return native pixel data, which must be the last element."""
    if at == len(data):
        return None
    if implicit:
        group, element, length = IMPLICIT_HEADER(head, at)
        vr, value = None, at + 8
    else:
        group, element, code, _ = EXPLICIT_HEADER(head, at)
        length, vr, value = LONG_LENGTH(head, at + 8)[0], VRS.get(code), at + 12
    tag = group << 16 | element
    if tag != PIXEL_DATA or vr not in (None, "OB", "OW") or value + length != len(data):
        raise Doubt
    if not length or length % 2:
        raise Doubt
    return NativePixels(vr, memoryview(data)[value:])


def raw_of(piece: ElementBytes, *, implicit: bool) -> RawDataElement:
    """Return an element as pydicom reads it; one of undefined length as if its length were told."""
    tag, vr, whole, at, is_open = piece
    value: bytes | None = whole[at : len(whole) - 8] if is_open else whole[at:]
    if not value:
        value = b"" if empty_value_for_VR(vr, raw=True) is not None else None
    return _raw(tag, vr, value, implicit)


def _raw(tag: int, vr: str | None, value: bytes | None, implicit: bool) -> RawDataElement:
    return RawDataElement(_key(tag), vr, len(value or b""), value, 0, implicit, True)


class Elements(MutableMapping[BaseTag, Element]):
    """Elements of a split file, made when they are asked for: most of them nobody looks at."""

    def __init__(self, found: ParsedFile) -> None:
        self.pieces: dict[int, ElementBytes | NativePixels | None] = {
            piece.tag: piece for piece in found.pieces
        }
        self._implicit = found.implicit
        self.seen: dict[int, Element] = {}
        if found.pixels is not None:
            self.pieces[PIXEL_DATA] = found.pixels

    def __getitem__(self, tag: BaseTag) -> Element:
        seen = self.seen.get(tag)
        if seen is None:
            piece = self.pieces[tag]
            assert piece is not None
            if isinstance(piece, NativePixels):
                seen = _raw(tag, piece.vr, bytes(piece.value), self._implicit)
            else:
                seen = raw_of(piece, implicit=self._implicit)
            self.seen[tag] = seen
        return seen

    def __setitem__(self, tag: BaseTag, element: Element) -> None:
        self.pieces.setdefault(tag)
        self.seen[tag] = element

    def __delitem__(self, tag: BaseTag) -> None:
        del self.pieces[tag]
        self.seen.pop(tag, None)

    def __contains__(self, tag: object) -> bool:
        return tag in self.pieces

    def __iter__(self) -> Iterator[BaseTag]:
        return map(_key, self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


def dataset_of(found: ParsedFile, elements: Elements) -> Dataset:
    """Return the data set that `parse` returns for the file."""
    made = Dataset(elements)
    meta = {_key(piece.tag): raw_of(piece, implicit=False) for piece in found.meta}
    made.file_meta = FileMetaDataset(
        meta | {_key(SYNTAX): DataElement(SYNTAX, "UI", found.syntax, already_converted=True)}
    )
    return made


_key = cache(BaseTag)
