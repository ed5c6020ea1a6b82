"""Size of a codestream: it is read before a decoder reserves memory for it."""

import struct

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.dicom.codestream import Size, codestream_size
from tests.dicom_objects import ramp

GREY = ramp((20, 30), np.uint8)
DEEP = ramp((20, 30), np.uint16)


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (imagecodecs.jpeg8_encode(GREY), 8),
        (imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=16), 16),
        (imagecodecs.jpegls_encode(DEEP), 16),
        (imagecodecs.ljpeg_encode(DEEP, bitspersample=12), 12),
        (imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", reversible=True), 16),
        (imagecodecs.jpeg2k_encode(DEEP, codecformat="jp2", reversible=True), 16),
        (imagecodecs.htj2k_encode(DEEP, reversible=True), 16),
    ],
    ids=["jpeg", "lossless", "jpegls", "ljpeg", "j2k", "jp2", "htj2k"],
)
def test_the_size_is_what_was_encoded(data: bytes, bits: int) -> None:
    size = codestream_size(data)
    assert size is not None
    assert (size.rows, size.columns, size.samples, size.bits) == (20, 30, 1, bits)


@pytest.mark.parametrize("codecformat", ["j2k", "jp2"])
@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_jpeg_2000_gives_its_sign(codecformat: str, kind: type) -> None:
    data = imagecodecs.jpeg2k_encode(ramp((20, 30), kind), codecformat=codecformat, reversible=True)
    size = codestream_size(data)
    assert size is not None
    assert size.signed is (kind is np.int16)


def test_samples_are_counted() -> None:
    size = codestream_size(imagecodecs.jpeg8_encode(np.zeros((8, 9, 3), np.uint8)))
    assert size == Size(rows=8, columns=9, samples=3, bits=8)


def test_an_origin_is_taken_off() -> None:
    siz = struct.pack(">HHHIIIIIIIIHBBB", 0xFF51, 41, 0, 130, 120, 30, 20, 64, 64, 0, 0, 1, 7, 1, 1)
    assert codestream_size(b"\xff\x4f" + siz) == Size(rows=100, columns=100, samples=1, bits=8, signed=False)


def test_fill_bytes_may_stand_before_a_marker() -> None:
    data = imagecodecs.jpeg8_encode(GREY)
    assert codestream_size(data[:2] + b"\xff\xff\xff" + data[2:]) == codestream_size(data)


def test_segments_before_the_frame_are_stepped_over() -> None:
    data = imagecodecs.jpeg8_encode(GREY)
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 4) + b"\xff\xc0\xff\xc0"
    assert codestream_size(data[:2] + comment + data[2:]) == codestream_size(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\x00\x00", b"GIF89a" * 9]
)
def test_bytes_without_a_size_are_none(data: bytes) -> None:
    assert codestream_size(data) is None


def test_a_codestream_cut_before_its_size_has_none() -> None:
    data = imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k")
    assert all(codestream_size(data[:end]) is None for end in range(40))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_size_or_none(data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "):
        size = codestream_size(start + data)
        assert size is None or isinstance(size, Size)
