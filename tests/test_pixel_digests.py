"""Digests of files and of pixels: one bit changes them, and compression does not change those of pixels."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.formats.dicom import read_dicom
from imaging.image.instance import Instance
from imaging.pixel_digests import digest_of_all, file_digest, native_file_digest, pixel_digest
from tests.codestreams import LOSSLESS
from tests.dicom_objects import compressed, dataset, file_bytes, made, ramp

TWELVE = (ramp((8, 6), np.uint16, step=53) & 0x0FFF).astype(np.uint16)
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
CODED = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless)


def read(data: bytes) -> Instance:
    (result,) = read_dicom(data, "CT")
    return result


def digests(data: bytes) -> tuple[str, str]:
    result = read(data)
    return result.content_blake3, result.pixel_blake3


def coded(stored: NDArray[np.uint16], syntax: str, bits: int) -> bytes:
    # Codestreams of 8 bits decode to single bytes.
    narrow = stored.astype(np.uint8) if bits == 8 and syntax != RLELossless else stored
    return compressed([LOSSLESS[syntax](narrow, bits)], stored, syntax, BitsStored=bits, BitsAllocated=16)


@pytest.mark.parametrize("syntax", NATIVE)
def test_native_pixels_have_one_digest_however_they_are_written(syntax: str) -> None:
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    data = made(TWELVE, syntax, BitsStored=12, PixelData=TWELVE.astype(order).tobytes())
    assert read(data).pixel_blake3 == pixel_digest(TWELVE).hex()


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", CODED)
def test_compressed_pixels_have_the_digest_of_native_ones(syntax: str, bits: int) -> None:
    stored = (ramp((16, 24), np.uint16, step=53) & (2**bits - 1)).astype(np.uint16)
    packed = coded(stored, syntax, bits)
    assert read(packed).pixel_blake3 == read(made(stored, BitsStored=bits)).pixel_blake3


def test_signed_pixels_have_another_digest_than_unsigned_ones_of_the_same_bits() -> None:
    assert pixel_digest(TWELVE) != pixel_digest(TWELVE.view(np.int16))


def test_the_same_values_in_another_shape_have_another_digest() -> None:
    assert pixel_digest(TWELVE) != pixel_digest(TWELVE.reshape(6, 8))


def test_the_order_of_bytes_in_memory_changes_no_digest() -> None:
    swapped = np.asfortranarray(TWELVE.astype(">u2"))
    assert pixel_digest(swapped) == pixel_digest(TWELVE)


def test_a_digest_of_pixels_is_as_in_its_docstring() -> None:
    assert pixel_digest(TWELVE) == blake3(b"<u2(8, 6)" + TWELVE.tobytes()).digest()


def test_a_digest_of_a_native_file_is_as_in_its_docstring() -> None:
    data, start = made(TWELVE, BitsStored=12), len(made(TWELVE, BitsStored=12)) - TWELVE.nbytes
    hashed = data[:start] + pixel_digest(TWELVE)
    hashed += start.to_bytes(8, "little") + TWELVE.nbytes.to_bytes(8, "little")
    assert read(data).content_blake3 == blake3(hashed).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("bits", [12, 16])
def test_one_bit_anywhere_that_leaves_a_file_readable_changes_its_digest(bits: int, frames: int) -> None:
    stored = TWELVE if frames == 1 else np.stack([TWELVE, TWELVE])
    data = made(stored, BitsStored=bits, ImageComments="any", DataSetTrailingPadding=b"12")
    seen = {next(iter(read_dicom(data, "CT"))).content_blake3}
    readable = 0
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        try:
            seen.add(next(iter(read_dicom(bytes(changed), "CT"))).content_blake3)
        except Exception:
            continue
        readable += 1
    assert readable > 4 * len(data)
    assert len(seen) == readable + 1


def test_bits_that_no_pixel_needs_change_the_digest_of_the_file_alone() -> None:
    overlaid = TWELVE | 0x8000
    plain, other = digests(made(TWELVE, BitsStored=12)), digests(made(overlaid, BitsStored=12))
    assert (plain[0] != other[0], plain[1] == other[1]) == (True, True)


def test_a_path_to_the_pixels_makes_no_difference_to_a_copy_in_memory() -> None:
    data = made(TWELVE, BitsStored=12)
    assert digests(data) == digests(bytes(bytearray(data)))
    assert digests(data) == digests(memoryview(data))  # type: ignore[arg-type]


def test_frames_share_the_digest_of_their_file_and_not_of_their_pixels() -> None:
    result = list(read_dicom(made(np.stack([TWELVE, TWELVE + 1])), "CT"))
    assert len({one.content_blake3 for one in result}) == 1
    assert len({one.pixel_blake3 for one in result}) == 2


def test_colours_have_one_digest_by_plane_and_by_pixel() -> None:
    colours = ramp((8, 6, 3), np.uint8, step=7)
    by_plane = np.ascontiguousarray(np.moveaxis(colours, -1, 0))
    other = dataset(colours, PlanarConfiguration=1, PixelData=by_plane.tobytes())
    assert read(made(colours)).pixel_blake3 == read(file_bytes(other)).pixel_blake3


def test_a_file_that_pydicom_must_read_has_the_digest_of_its_bytes() -> None:
    data = made(TWELVE, ExplicitVRBigEndian)
    assert read(data).content_blake3 == file_digest(data).hex()


def test_where_the_pixels_begin_is_part_of_the_digest() -> None:
    data, pixels = bytes(64), bytes(32)
    assert native_file_digest(data, 8, 16, pixels) != native_file_digest(data, 16, 16, pixels)


def test_the_order_counts_in_a_digest_of_all() -> None:
    assert digest_of_all([b"a", b"b"]) != digest_of_all([b"b", b"a"])


def test_a_real_slice_has_its_digest_after_it_was_compressed(ct_slices: Path) -> None:
    path = min(ct_slices.glob("*.dcm"))
    one = dcmread(path)
    one.compress(RLELossless)
    packed = BytesIO()
    one.save_as(packed)
    assert read(packed.getvalue()).pixel_blake3 == read(path.read_bytes()).pixel_blake3
