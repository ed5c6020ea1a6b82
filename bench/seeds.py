"""Seeds of the bench of mutated files: files that pydicom ships, with the places of their elements."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from struct import Struct, unpack_from

import pydicom
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from imaging.dicom.elements import ITEM, ITEM_END, LONG, SEQUENCE_END, UNDEFINED

NAMES = (
    *("CT_small", "rtdose", "MR_small_bigendian", "image_dfl", "examples_palette", "liver_1frame"),
    *("SC_rgb_rle_2frame", "JPGExtended", "MR_small_jpeg_ls_lossless", "MR_small_jp2klossless"),
)
"""Explicit, implicit and of 15 frames, big endian, deflated, palette, enhanced of one bit; RLE in colour and of two
frames, JPEG of 12 bits, JPEG-LS, JPEG 2000."""
MODALITY = "OT"
PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True, slots=True)
class Element:
    """The header of an element, an item or a fragment, and its value; `end` is where the next header begins.

    An element with others inside ends where its value begins.
    """

    tag: int
    vr: bytes
    start: int
    value: int
    end: int
    length_at: int
    length_size: int


@dataclass(frozen=True)
class Seed:
    """A whole file, in two pieces: up to the end of group 2, and the data set as it is before it is deflated."""

    name: str
    meta: bytes
    body: bytes
    syntax: str

    @property
    def order(self) -> str:
        return ">" if self.syntax == ExplicitVRBigEndian else "<"

    @cached_property
    def elements(self) -> tuple[Element, ...]:
        return tuple(_elements(self.body, self.order, self.syntax == ImplicitVRLittleEndian))

    @cached_property
    def pixels(self) -> tuple[Element, ...]:
        """The pixel data; of encapsulated ones the element, its fragments and the delimiter."""
        first = next(n for n, one in enumerate(self.elements) if one.tag == PIXEL_DATA)
        last = first
        while self.encapsulated and self.elements[last].tag != SEQUENCE_END:
            last += 1
        return self.elements[first : last + 1]

    @property
    def encapsulated(self) -> bool:
        return pydicom.uid.UID(self.syntax).is_encapsulated

    @property
    def deflated(self) -> bool:
        return self.syntax == DeflatedExplicitVRLittleEndian

    def file(self, body: bytes | None = None) -> bytes:
        """Return the bytes of the file with another data set."""
        body = self.body if body is None else body
        return self.meta + (deflate(body) if self.deflated else body)


def deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def seed(name: str) -> Seed:
    """Return a file of pydicom's with the identifiers that some of them lack, so that it is an example."""
    dataset = dcmread(str(get_testdata_file(f"{name}.dcm", download=False)))
    dataset.Modality = MODALITY
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not dataset.get(keyword):
            setattr(dataset, keyword, "1.2.3")
    stream = BytesIO()
    dataset.save_as(stream)
    data = stream.getvalue()
    # The length of group 2 stands first in it (PS3.10 7.1).
    start = 144 + unpack_from("<I", data, 140)[0]
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    body = data[start:]
    if syntax == DeflatedExplicitVRLittleEndian:
        body = zlib.decompress(body, -zlib.MAX_WBITS)
    return Seed(name, data[:start], body, syntax)


def seeds_of_all() -> list[Seed]:
    """Return every image in pydicom's wheel that pydicom can write again."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    images = []
    for path in sorted(folder.glob("*.dcm")):
        # Some of what it ships cannot be read, or was never an image.
        with suppress(Exception):
            one = seed(path.stem)
            images += [one] if one.pixels and "Rows" in dcmread(path) else []
    return images


def _elements(body: bytes, order: str, implicit: bool) -> Iterator[Element]:
    """Yield every header of a data set, also those inside sequences, in the order of the file."""
    tags, short, long = Struct(f"{order}HH"), Struct(f"{order}H"), Struct(f"{order}I")
    at, in_pixels = 0, False
    while at + 8 <= len(body):
        group, number = tags.unpack_from(body, at)
        tag, vr, start = group << 16 | number, b"", at
        size, length_at = 4, at + 4
        if tag not in (ITEM, ITEM_END, SEQUENCE_END) and not implicit:
            vr = body[at + 4 : at + 6]
            size, length_at = (4, at + 8) if vr in LONG else (2, at + 6)
        value = length_at + size
        length = (short if size == 2 else long).unpack_from(body, length_at)[0]
        nested = length == UNDEFINED or vr == b"SQ" or (tag == ITEM and not in_pixels)
        in_pixels |= tag == PIXEL_DATA and length == UNDEFINED
        at = value if nested else value + length
        yield Element(tag, vr, start, value, at, length_at, size)
