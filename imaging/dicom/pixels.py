"""Stored values of a frame, decoded from its bytes in any transfer syntax."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, RLELossless

from imaging.dicom.attributes import Attributes, Value, first, text, whole
from imaging.dicom.codecs import FAST, check_codestream, decode_by_plugin, decode_fast, find_decoder
from imaging.dicom.codestream import Size, bare
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.elements import Buffer
from imaging.dicom.jpeg_segments import goes_on
from imaging.dicom.limits import LIMITS, check_limit
from imaging.dicom.parse import reading
from imaging.errors import DataFault

NATIVE_BITS = (8, 16, 32)
SAMPLES: Mapping[str, int] = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1}
"""Photometric interpretations with one sample per pixel; all others have three (PS3.3 C.7.6.3.1.2)."""
NUMBERS = (
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
LAYOUT = (*NUMBERS, "PhotometricInterpretation", "PixelPaddingValue", "PixelPaddingRangeLimit")
"""The attributes that the layout depends on."""
CONVERTED = frozenset({"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422"})
"""Photometric interpretations whose native form pydicom converts to RGB."""
SUBSAMPLED = {"YBR_FULL_422": 2, "YBR_PARTIAL_422": 2}
"""Samples per pixel of photometric interpretations whose native form omits colour samples (PS3.3 C.7.6.3.1.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Layout of the samples of a frame in its bytes, PS3.3 C.7.6.3.

    `padding` is the range of padding where BitsStored cannot hold it: some scanners pad with 16 bits around 12.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: bool
    photometric: str
    padding: tuple[int, int] | None = None

    @property
    def frame_bits(self) -> int:
        """The number of bits of one native frame."""
        samples = SUBSAMPLED.get(self.photometric, self.samples)
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def native_bytes(self) -> int:
        """The number of bytes of all native frames, without padding."""
        return (self.frame_bits * self.frames + 7) // 8


def layout_of(attributes: Attributes) -> Layout:
    """Return the layout that a header gives; raise DataFault "undecodable", "unsupported" or "too-large"."""
    # Objects of a series have the same one.
    return _cached_layout(*map(attributes.get, LAYOUT))


@lru_cache(256)
def _cached_layout(*values: Value | None) -> Layout:
    attributes = {name: value for name, value in zip(LAYOUT, values, strict=True) if value is not None}
    needed = {
        name: first(attributes, name) for name in ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel")
    }
    for name, value in needed.items():
        if not value or value < 1:
            raise DataFault("undecodable", f"{name} is missing or no positive number")
    if "BitsStored" in attributes and first(attributes, "PixelRepresentation") is None:
        # Without it nobody knows the sign; floating-point pixels have neither of the two (PS3.3 C.7.6.24).
        raise DataFault("undecodable", "PixelRepresentation is missing or not a finite number")
    for name in NUMBERS:
        if attributes.get(name) == ():
            raise DataFault("undecodable", f"{name} is not a finite number")
    allocated = whole(attributes, "BitsAllocated", 0)
    stored = whole(attributes, "BitsStored", allocated)
    layout = Layout(
        rows=whole(attributes, "Rows", 0),
        columns=whole(attributes, "Columns", 0),
        samples=whole(attributes, "SamplesPerPixel", 1),
        frames=whole(attributes, "NumberOfFrames", 1) or 1,
        bits_allocated=allocated,
        bits_stored=stored,
        # A HighBit that is too low is an error of the writer that all readers ignore.
        high_bit=max(whole(attributes, "HighBit", stored - 1), stored - 1),
        signed=whole(attributes, "PixelRepresentation", 0) == 1,
        planar=whole(attributes, "PlanarConfiguration", 0) == 1,
        photometric=text(attributes, "PhotometricInterpretation"),
    )
    _check(layout)
    padding = _padding_beyond(attributes, layout)
    return replace(layout, padding=padding) if padding else layout


def _padding_beyond(attributes: Attributes, layout: Layout) -> tuple[int, int] | None:
    """Return the range of padding where one of its ends does not fit into BitsStored."""
    value = first(attributes, "PixelPaddingValue")
    if value is None or layout.bits_stored == layout.bits_allocated or layout.high_bit >= layout.bits_stored:
        return None
    ends = sorted((int(value), whole(attributes, "PixelPaddingRangeLimit", int(value))))
    steps = 2 ** (layout.bits_stored - layout.signed)
    fits = all(-steps * layout.signed <= end < steps for end in ends)
    return None if fits else (ends[0], ends[1])


def _check(layout: Layout) -> None:
    check_limit("too-large", "Rows", layout.rows, LIMITS.rows_columns)
    check_limit("too-large", "Columns", layout.columns, LIMITS.rows_columns)
    check_limit(
        "too-large", "the decoded size of a frame in bytes", layout.frame_bits // 8, LIMITS.frame_bytes
    )
    samples = layout.rows * layout.columns * layout.samples
    check_limit("too-large", "the number of samples of a frame", samples, LIMITS.frame_samples)
    check_limit("too-large", "NumberOfFrames", layout.frames, LIMITS.frames)
    if layout.frames < 1:
        raise DataFault("undecodable", f"NumberOfFrames is {layout.frames}")
    if layout.samples not in (1, 3):
        raise DataFault("unsupported", f"SamplesPerPixel is {layout.samples}, 1 or 3 is expected")
    if layout.bits_allocated == 1 and layout.samples != 1:
        raise DataFault("unsupported", f"SamplesPerPixel is {layout.samples} of single bits, 1 is expected")
    expected = SAMPLES.get(layout.photometric, 3)
    if layout.photometric and layout.samples != expected:
        raise DataFault(
            "undecodable", f"SamplesPerPixel is {layout.samples}, the photometric says {expected}"
        )
    if not 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated:
        raise DataFault(
            "undecodable",
            f"BitsAllocated, BitsStored and HighBit are {layout.bits_allocated}, {layout.bits_stored} "
            f"and {layout.high_bit}, which do not fit together",
        )


def stored_frame(opened: DicomObject, layout: Layout, index: int) -> NDArray[Any]:
    """Return the stored values of one frame: (rows, columns), or (rows, columns, 3) of colour, as RGB.

    Bits outside of BitsStored (overlays of the retired kind) are removed and signs are extended. A native frame is a
    view of the file's bytes where nothing has to be changed. Raises DataFault "undecodable" or "truncated", and
    EnvironmentFault for a decoder that is not installed.
    """
    if opened.encapsulated:
        return _decoded_whole(opened, layout, opened.fragment(index))
    if opened.floating_bits not in (0, layout.bits_allocated):
        raise DataFault("undecodable", f"BitsAllocated is {layout.bits_allocated} of floating-point pixels")
    if opened.floating_bits or _is_simple(opened, layout):
        stored = _native(opened, layout, index)
    elif layout.bits_allocated == 1:
        stored = _unpacked(opened, layout, index)
    else:
        with reading("undecodable", "the pixel data"):
            stored = _native_by_pydicom(opened, layout, index)
    if opened.floating_bits or layout.bits_allocated == 1:
        return stored
    return keep_stored_bits(stored, layout, layout.bits_stored, layout.high_bit)


def _is_simple(opened: DicomObject, layout: Layout) -> bool:
    """Return whether a native frame consists of little-endian integers of whole bytes."""
    return (
        opened.syntax != ExplicitVRBigEndian
        and layout.bits_allocated in NATIVE_BITS
        and layout.photometric not in CONVERTED
    )


def _native(opened: DicomObject, layout: Layout, index: int) -> NDArray[Any]:
    start = opened.pixels[0][0] + index * layout.frame_bits // 8
    count = layout.rows * layout.columns * layout.samples
    order = ">" if opened.syntax == ExplicitVRBigEndian else "<"
    letter = "f" if opened.floating_bits else "i" if layout.signed else "u"
    flat = np.frombuffer(opened.data, f"{order}{letter}{layout.bits_allocated // 8}", count, start)
    if layout.samples == 1:
        return flat.reshape(layout.rows, layout.columns)
    if layout.planar:
        return flat.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0)
    return flat.reshape(layout.rows, layout.columns, layout.samples)


def _unpacked(opened: DicomObject, layout: Layout, index: int) -> NDArray[Any]:
    """Return a frame of single bits, which may begin inside a byte (PS3.5 8.1.1 and annex D).

    The first bit is the lowest of a byte, or of a word of OW, whose bytes are swapped in big endian (PS3.5 2016b, 7.3).
    """
    first, length = opened.pixels[0]
    start, shift = divmod(index * layout.frame_bits, 16)
    count = min((shift + layout.frame_bits + 15) // 16 * 2, length - 2 * start)
    packed = np.frombuffer(opened.data, np.uint8, count, first + 2 * start)
    if opened.syntax == ExplicitVRBigEndian and opened.pixel_vr == "OW":
        if count % 2:
            raise DataFault("undecodable", f"PixelData has {length} bytes, which are no words")
        packed = packed.view(np.uint16).byteswap().view(np.uint8)
    bits = np.unpackbits(packed, bitorder="little")[shift : shift + layout.frame_bits]
    return bits.reshape(layout.rows, layout.columns)


def keep_stored_bits(stored: NDArray[Any], layout: Layout, bits: int, high_bit: int) -> NDArray[Any]:
    """Return values made of the `bits` up to `high_bit`, with their sign (PS3.5 8.1.1); other bits are removed.

    >>> header = dict.fromkeys(("Rows", "Columns", "SamplesPerPixel", "PixelRepresentation"), (1.0,))
    >>> header["BitsAllocated"] = (16.0,)
    >>> keep_stored_bits(np.array([[0x0FFF]], np.uint16), layout_of(header), 12, 11)
    array([[-1]], dtype=int16)
    """
    width = stored.dtype.itemsize * 8
    meant: NDArray[Any] = stored.view(f"{'i' if layout.signed else 'u'}{stored.dtype.itemsize}")
    if bits >= width:
        return meant
    if layout.padding is not None:
        # Padding is compared before its bits are removed (PS3.3 C.7.5.1.1.2): the rest of them is a value like others.
        kept = keep_stored_bits(stored, replace(layout, padding=None), bits, high_bit)
        hidden = (meant >= float(layout.padding[0])) & (meant <= float(layout.padding[1]))
        return np.where(hidden, meant, kept)
    if not layout.signed and high_bit == bits - 1:
        largest = meant.dtype.type(2**bits - 1)
        # To look whether there is anything to remove takes half the time of removing it.
        return meant if meant.max() <= largest else np.asarray(meant & largest)
    shifted: NDArray[Any] = np.left_shift(meant, width - 1 - high_bit)
    shifted >>= width - bits
    return shifted


def decoded(opened: DicomObject, layout: Layout, codestream: Buffer) -> NDArray[Any]:
    """Return the stored values of a compressed frame; raise as `stored_frame` does."""
    stored = decoded_fast(opened, layout, codestream)
    return _decoded_by_plugin(opened, layout, codestream) if stored is None else stored


def _decoded_whole(opened: DicomObject, layout: Layout, codestream: Buffer) -> NDArray[Any]:
    """Return as `decoded`; raise "surplus-data" too where grey JPEG-LS goes on behind its last pixel.

    Its fast decoder refuses that, which costs nothing; to find it out for others costs each frame a second decoding.
    """
    if (fast := decoded_fast(opened, layout, codestream)) is not None:
        return fast
    stored = _decoded_by_plugin(opened, layout, codestream)
    if layout.samples == 1 and opened.syntax in JPEGLSTransferSyntaxes:
        by_plugin = partial(_decoded_by_plugin, opened, layout)
        if goes_on(codestream, lambda altered: np.array_equal(by_plugin(altered), stored)):
            raise DataFault("surplus-data", "a compressed frame goes on behind its last pixel")
    return stored


def _decoded_by_plugin(opened: DicomObject, layout: Layout, codestream: Buffer) -> NDArray[Any]:
    with reading("undecodable", "the pixel data"):
        return decode_by_plugin(bare(codestream), opened.syntax, _options(replace(layout, frames=1)))


def decoded_fast(opened: DicomObject, layout: Layout, codestream: Buffer) -> NDArray[Any] | None:
    """Return the stored values of a compressed frame, None where pydicom's plugins must try."""
    if opened.syntax not in FAST:
        find_decoder(opened.syntax)
    frame, shape = bare(codestream), (layout.rows, layout.columns)
    size = check_codestream(frame, opened.syntax, shape, layout.samples, layout.bits_allocated)
    if layout.samples > 1 and (opened.syntax != RLELossless or layout.photometric in CONVERTED):
        return None
    samples = decode_fast(frame, opened.syntax, shape, layout.samples, layout.bits_allocated)
    return None if samples is None else keep_stored_bits(samples, layout, *stored_bits(opened, layout, size))


def stored_bits(opened: DicomObject, layout: Layout, size: Size | None) -> tuple[int, int]:
    """Return how many bits are stored, and the highest of them.

    The codestream decides where its bits do not reach HighBit. One of JPEG 2000, whose sign is at its precision,
    decides too where it has fewer bits than are allocated; with all of them, overlays were compressed with the values.
    """
    reach = layout.bits_allocated - 1 if opened.syntax in JPEG2000TransferSyntaxes else layout.high_bit
    if size is not None and size.bits <= reach:
        return size.bits, size.bits - 1
    return layout.bits_stored, layout.high_bit


def _native_by_pydicom(opened: DicomObject, layout: Layout, index: int) -> NDArray[Any]:
    """Return a frame of subsampled colours or of big-endian values; pydicom gets it alone where it is whole words."""
    start, length = opened.pixels[0]
    part, bits = layout, layout.frame_bits
    if bits % 16 == 0:
        part, start, length, index = replace(layout, frames=1), start + index * bits // 8, bits // 8, 0
    value = bytes(memoryview(opened.data)[start : start + length])
    options = _options(part)
    # In big-endian words, bytes of OW too are swapped in pairs.
    options["pixel_vr"] = opened.pixel_vr or options["pixel_vr"]
    stored, _ = find_decoder(opened.syntax).as_array(value, index=index, **options)
    return np.asarray(stored, stored.dtype.newbyteorder("="))


def _options(layout: Layout) -> dict[str, Any]:
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "number_of_frames": layout.frames,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "planar_configuration": int(layout.planar),
        "photometric_interpretation": layout.photometric,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OB" if layout.bits_allocated <= 8 else "OW",
    }
