"""Writing of a de-identified file: a preamble of zeros, a file meta group of our own, the data set.

The values that `scrub` returns are bytes already. pydicom's writer gives the same file in four times the time.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from imaging.deidentify.objects.charsets import terms_of
from imaging.deidentify.objects.method_statement import VERSION_NAME
from imaging.deidentify.objects.raw_elements import Element, make_raw, padded, raw_bytes
from imaging.dicom.elements import ITEM, LONG, SEQUENCE_END, UNDEFINED, Buffer

IMPLEMENTATION_CLASS = UID("2.25.292795442295406804666398100462442980605")
"""UID of this program in every file that it writes (PS3.10 7.1); made once from a UUID."""
PREAMBLE = bytes(128) + b"DICM"
CHARACTER_SET, SOP_CLASS, SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018


def write_object(dataset: Dataset) -> bytes:
    """Return a DICOM file (PS3.10 section 7) of a data set that `scrub` returned, in its own transfer syntax.

    The same data set gives the same bytes; pixel data are copied once.
    """
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    body = _encoded(dataset, implicit, little)
    if syntax == DeflatedExplicitVRLittleEndian:
        body = iter([_deflated(b"".join(body))])
    sop_class, sop_instance = (raw_bytes(dataset.get_item(tag)) for tag in (SOP_CLASS, SOP_INSTANCE))
    return in_file(syntax, sop_class, sop_instance, body)


def in_file(syntax: str, sop_class: bytes, sop_instance: bytes, body: Iterable[Buffer]) -> bytes:
    """Return the file of an encoded data set that comes in parts, which are copied once."""
    return b"".join([PREAMBLE, _file_meta(syntax, sop_class, sop_instance), *body])


def _file_meta(syntax: str, sop_class: bytes, sop_instance: bytes) -> bytes:
    """Return the group in explicit little-endian form, its own length first (PS3.10 7.1)."""
    elements = {
        0x00020001: ("OB", b"\0\1"),
        0x00020002: ("UI", sop_class),
        0x00020003: ("UI", sop_instance),
        0x00020010: ("UI", syntax.encode()),
        0x00020012: ("UI", IMPLEMENTATION_CLASS.encode()),
        0x00020013: ("SH", VERSION_NAME.encode()),
    }
    group = b"".join(_explicit(tag, vr, value) for tag, (vr, value) in elements.items())
    return _explicit(0x00020000, "UL", struct.pack("<I", len(group))) + group


def _explicit(tag: int, vr: str, value: bytes) -> bytes:
    value = padded(vr, value)
    return header(tag, vr, len(value), False, True) + value


def _deflated(plain: bytes) -> bytes:
    """Return the deflated form (PS3.5 A.5), of even length."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(plain) + packer.flush()
    return packed + bytes(len(packed) % 2)


def _encoded(dataset: Dataset, implicit: bool, little: bool) -> Iterator[bytes]:
    """Yield the bytes of a data set's elements in the order of their tags (PS3.5 7.1)."""
    for _, element in sorted(dataset.items(), key=lambda item: int(item[0])):
        if element.VR == "SQ" or isinstance(element, RawDataElement):
            yield from encoded(element, implicit, little)
        else:
            # pydicom converted it when it was read.
            terms = terms_of(raw_bytes(dataset.get_item(CHARACTER_SET))) if CHARACTER_SET in dataset else ()
            value = raw_bytes(element, terms, little=little)
            raw = make_raw(element.tag, element.VR, value, implicit=implicit, little=little)
            yield from encoded(raw, implicit, little)


def encoded(element: Element, implicit: bool, little: bool) -> Iterator[bytes]:
    """Yield the bytes of an element that `scrub` returned; sequences and items with their lengths (PS3.5 7.5)."""
    parts, is_open = [element.value or b""], False
    if element.VR == "SQ":
        parts = []
        for item in cast(Sequence, element.value) or ():
            content = b"".join(_encoded(item, implicit, little))
            parts += [_packer(little)[1](ITEM >> 16, ITEM & 0xFFFF, len(content)), content]
    elif cast(RawDataElement, element).length == UNDEFINED:
        is_open = True
        parts.append(_packer(little)[1](SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0))
    length = UNDEFINED if is_open else sum(map(len, parts))
    yield header(int(element.tag), str(element.VR), length, implicit, little)
    yield from parts


def header(tag: int, vr: str, length: int, implicit: bool, little: bool) -> bytes:
    """Return tag, VR and length; a length of two bytes is too short for long text, which is then of unknown VR."""
    short, long = _packer(little)
    group, number, letters = tag >> 16, tag & 0xFFFF, vr.encode()
    if implicit:
        return long(group, number, length)
    if letters not in LONG and length > 0xFFFF:
        letters = b"UN"
    if letters in LONG:
        return short(group, number, letters, 0) + length.to_bytes(4, "little" if little else "big")
    return short(group, number, letters, length)


@cache
def _packer(little: bool) -> tuple[Callable[..., bytes], Callable[..., bytes]]:
    """Return the functions that pack a header with a VR and a short length, and one without a VR and a long length."""
    order = "<" if little else ">"
    return struct.Struct(f"{order}HH2sH").pack, struct.Struct(f"{order}HHI").pack
