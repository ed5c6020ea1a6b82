"""Bounds of a codestream: one that is cut short or claims too much never reaches a decoder."""

import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from imaging.dicom.codecs import check_codestream
from imaging.dicom.codestream import bare, codestream_size
from imaging.errors import DataFault

EMPTY = np.zeros((600, 700), np.uint8)
Encoder = Callable[[Any], bytes]
ENCODERS: dict[str, Encoder] = {
    JPEGBaseline8Bit: imagecodecs.jpeg8_encode,
    JPEGLosslessSV1: lambda image: imagecodecs.jpeg8_encode(image, lossless=True),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda image: imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True),
}


def check(frame: bytes, syntax: str, shape: tuple[int, int] = EMPTY.shape) -> None:
    check_codestream(frame, syntax, shape, 1, 8)


@pytest.mark.parametrize("syntax", ENCODERS)
def test_an_empty_image_is_not_too_short(syntax: str) -> None:
    check(ENCODERS[syntax](EMPTY), syntax)


@pytest.mark.parametrize("syntax", ENCODERS)
def test_a_codestream_without_its_end_is_truncated(syntax: str) -> None:
    with pytest.raises(DataFault, match="truncated"):
        check(ENCODERS[syntax](EMPTY)[:-20], syntax)


@pytest.mark.parametrize("padding", [b"\0", b"\xff", bytes(1000)])
def test_padding_may_stand_behind_the_end(padding: bytes) -> None:
    check(ENCODERS[JPEGBaseline8Bit](EMPTY) + padding, JPEGBaseline8Bit)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless])
def test_a_claim_of_more_than_the_bytes_is_truncated(syntax: str) -> None:
    frame = ENCODERS[syntax](np.zeros((8, 8), np.uint8))
    frame = frame.replace(struct.pack(">HH", 8, 8), struct.pack(">HH", 60000, 1000), 1)
    with pytest.raises(DataFault, match="cannot be 60000 x 1000"):
        check(frame, syntax, (60000, 1000))


def test_more_tiles_than_bytes_are_truncated() -> None:
    frame = bytearray(ENCODERS[JPEG2000Lossless](EMPTY))
    struct.pack_into(">II", frame, 24, 1, 1)
    with pytest.raises(DataFault, match="cannot be 600 x 700"):
        check(bytes(frame), JPEG2000Lossless)


def test_tiles_of_no_size_are_no_codestream() -> None:
    frame = bytearray(ENCODERS[JPEG2000Lossless](EMPTY))
    struct.pack_into(">II", frame, 24, 0, 1)
    assert codestream_size(bytes(frame)) is None


def test_a_jp2_file_is_taken_off() -> None:
    wrapped = imagecodecs.jpeg2k_encode(EMPTY, codecformat="jp2", reversible=True)
    assert bare(wrapped) == ENCODERS[JPEG2000Lossless](EMPTY)


def rle(*segments: bytes, count: int | None = None, first: int = 64) -> bytes:
    starts = np.cumsum([first, *map(len, segments[:-1])]).tolist()
    head = [len(segments) if count is None else count, *starts, *[0] * (15 - len(segments))]
    return struct.pack("<16I", *head) + b"".join(segments)


def test_an_rle_frame_has_a_segment_for_each_byte_of_a_sample() -> None:
    one = imagecodecs.packbits_encode(bytes(100))
    check_codestream(rle(one), RLELossless, (10, 10), 1, 8)
    check_codestream(rle(one, one), RLELossless, (10, 10), 1, 16)


@pytest.mark.parametrize(
    "frame",
    [
        rle(b"\x9d\0", b"\x9d\0"),
        rle(b"\x9d\0", count=2),
        rle(b"\x9d\0", count=0),
        rle(b"\x9d\0", first=62),
        rle(b"\x9d\0", first=70),
        rle(b"\x81\0" * 1000),
        rle(b"\x9d\0")[:60],
        b"",
    ],
    ids=["more", "told more", "told none", "in the head", "beyond the end", "bomb", "cut", "nothing"],
)
def test_other_segments_are_refused(frame: bytes) -> None:
    with pytest.raises(DataFault, match="undecodable"):
        check_codestream(frame, RLELossless, (10, 10), 1, 8)
