"""Stored values of frames: all numbers of bits, and all layouts of frames in a file."""

import struct
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from tests.codestreams import DEEP, LOSSLESS, SEVERAL
from tests.dicom_objects import compressed, dataset, fault, file_bytes, made, ramp, stored_frames


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", range(1, 17))
def test_odd_bits_keep_their_sign_whatever_lies_above(bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    wanted = (ramp((8, 8), np.int64, step=977) % 2**bits + low).astype(np.int16 if signed else np.uint16)
    overlay = (np.uint16(0xFFFF) << np.uint16(bits)) if bits < 16 else np.uint16(0)
    noisy = wanted.view(np.uint16) ^ (ramp((8, 8), np.uint16, step=7919) & overlay)
    data = made(noisy, BitsStored=bits, PixelRepresentation=int(signed))
    (frame,) = stored_frames(data)
    np.testing.assert_array_equal(frame, wanted)
    swapped = made(noisy.byteswap(), ExplicitVRBigEndian, BitsStored=bits, PixelRepresentation=int(signed))
    (frame,) = stored_frames(swapped)
    np.testing.assert_array_equal(frame, wanted)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("high_bit", [11, 13, 15])
def test_a_value_ends_at_high_bit(high_bit: int, signed: bool) -> None:
    low = -2048 if signed else 0
    wanted = (ramp((8, 8), np.int64, step=977) % 4096 + low).astype(np.int16 if signed else np.uint16)
    shifted = (wanted.view(np.uint16) & 0xFFF) << np.uint16(high_bit - 11) | np.uint16(high_bit > 11)
    data = made(shifted, BitsStored=12, HighBit=high_bit, PixelRepresentation=int(signed))
    (frame,) = stored_frames(data)
    np.testing.assert_array_equal(frame, wanted)


def test_a_high_bit_that_is_too_low_is_passed_over() -> None:
    (frame,) = stored_frames(made(DEEP, HighBit=7))
    np.testing.assert_array_equal(frame, DEEP)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32])
@pytest.mark.parametrize("shape", [(3, 4, 6), (5, 3, 5)])
def test_native_frames_are_read_one_by_one(kind: Any, shape: tuple[int, ...]) -> None:
    stored = ramp(shape, kind, step=17)
    np.testing.assert_array_equal(list(stored_frames(made(stored))), stored)


def test_frames_of_one_bit_may_begin_inside_a_byte() -> None:
    bits = (ramp((5, 3, 5), np.uint8, step=7) % 3 == 0).astype(np.uint8)
    packed = np.frombuffer(pack_bits(bits), np.uint8)
    data = made(bits, BitsAllocated=1, BitsStored=1, PixelData=packed.tobytes())
    np.testing.assert_array_equal(list(stored_frames(data)), bits)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 8, 8), (3, 13, 7), (5, 3, 5), (1, 3, 5)])
@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_bits_in_big_endian_are_swapped_in_ow_only(vr: str, shape: tuple[int, ...]) -> None:
    # PS3.5 2016b, 7.3 and 8.1.1: OB is unaffected by byte ordering, the words of OW are not. pydicom 3.0.2 swaps none.
    bits = np.random.default_rng(3).integers(0, 2, shape).astype(np.uint8)
    value = np.frombuffer(pack_bits(bits), np.uint16)
    one = dataset(bits, BitsAllocated=1, BitsStored=1, PixelData=value.tobytes())
    if vr == "OW":
        one.PixelData = value.byteswap().tobytes()
    one["PixelData"].VR = vr
    np.testing.assert_array_equal(list(stored_frames(file_bytes(one, ExplicitVRBigEndian))), bits)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_bits_of_three_samples_are_unsupported(syntax: str) -> None:
    colour = dataset(np.zeros((64, 8, 3), np.uint8), BitsAllocated=1, BitsStored=1)
    if syntax == RLELossless:
        colour.PixelData = encapsulate([bytes(64)])
        colour["PixelData"].is_undefined_length = True
    refused = fault(file_bytes(colour, syntax))
    assert refused.args == ("unsupported", "SamplesPerPixel is 3 of single bits, 1 is expected")


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("has_bot", [True, False])
def test_frames_of_one_fragment_each(syntax: str, has_bot: bool) -> None:
    frames = [LOSSLESS[syntax](one, 16) for one in SEVERAL]
    data = compressed([], SEVERAL, syntax, encapsulate(frames, has_bot=has_bot))
    np.testing.assert_array_equal(list(stored_frames(data)), SEVERAL)


@pytest.mark.parametrize("syntax", [name for name in LOSSLESS if name != RLELossless])
@pytest.mark.parametrize("has_bot", [True, False])
def test_frames_of_several_fragments_each(syntax: str, has_bot: bool) -> None:
    frames = [LOSSLESS[syntax](one, 16) for one in SEVERAL]
    data = compressed([], SEVERAL, syntax, encapsulate(frames, fragments_per_frame=2, has_bot=has_bot))
    np.testing.assert_array_equal(list(stored_frames(data)), SEVERAL)


def test_one_frame_of_several_fragments() -> None:
    value = encapsulate([LOSSLESS[JPEGLSLossless](DEEP, 16)], fragments_per_frame=4)
    (frame,) = stored_frames(compressed([], DEEP, JPEGLSLossless, value))
    np.testing.assert_array_equal(frame, DEEP)


def test_frames_by_the_extended_offset_table() -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]
    value, offsets, lengths = encapsulate_extended(frames)
    changes = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    data = compressed([], SEVERAL, JPEGLSLossless, value, **changes)
    np.testing.assert_array_equal(list(stored_frames(data)), SEVERAL)


def test_the_extended_offset_table_groups_fragments() -> None:
    # The ends of codestreams would tell it too: here the first half of a frame ends like a whole one.
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]
    pieces = [part for one in frames for part in (one[:40] + b"", one[40:])]
    value = encapsulate(pieces, has_bot=False)
    starts = np.cumsum([0, *(len(part) + len(part) % 2 + 8 for part in pieces)])[0:-1:2]
    changes = {"ExtendedOffsetTable": starts.astype("<u8").tobytes(), "ExtendedOffsetTableLengths": bytes(24)}
    data = compressed([], SEVERAL, JPEGLSLossless, value, **changes)
    np.testing.assert_array_equal(list(stored_frames(data)), SEVERAL)


def test_an_offset_table_that_leads_nowhere_is_a_fault() -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]
    value = bytearray(encapsulate(frames, fragments_per_frame=2))
    value[12] ^= 4
    assert fault(compressed([], SEVERAL, JPEGLSLossless, bytes(value))).reason == "undecodable"


def test_fewer_fragments_than_frames_are_truncation() -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL[:2]]
    assert fault(compressed(frames, SEVERAL, JPEGLSLossless)).reason == "truncated"


def test_fewer_bytes_than_frames_are_truncation() -> None:
    assert fault(made(SEVERAL, NumberOfFrames=4)).reason == "truncated"


@pytest.mark.parametrize(
    ("keyword", "kind"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_floating_point_pixels_are_read(keyword: str, kind: Any, syntax: str) -> None:
    stored = np.linspace(-1, 1, 24).astype(kind).reshape(2, 3, 4)
    changes = {"PixelData": None, keyword: stored.tobytes(), "PixelRepresentation": None, "BitsStored": None}
    np.testing.assert_array_equal(list(stored_frames(made(stored, syntax, **changes))), stored)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_floating_point_pixels_that_cannot_be_counted_with_are_a_fault(bad: float) -> None:
    stored = np.full((4, 4), bad)
    changes = {"PixelData": None, "DoubleFloatPixelData": stored.tobytes(), "BitsStored": None}
    assert fault(made(stored, **changes)).reason == "undecodable"


def test_floating_point_pixels_of_another_width_are_a_fault() -> None:
    stored = np.zeros((4, 4))
    data = made(stored, PixelData=None, FloatPixelData=stored.tobytes(), BitsStored=None)
    assert fault(data).reason == "undecodable"


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": None},
        {"BitsStored": 17},
        {"BitsAllocated": 12, "BitsStored": 12},
        {"SamplesPerPixel": 3},
        {"PhotometricInterpretation": "RGB"},
        {"NumberOfFrames": "-1"},
        {"BitsAllocated": None},
    ],
)
def test_a_layout_that_cannot_be_is_a_fault(changes: dict[str, Any]) -> None:
    assert fault(made(DEEP, **changes)).reason in {"undecodable", "truncated", "surplus-data"}


def test_four_samples_are_not_supported() -> None:
    assert fault(made(DEEP, SamplesPerPixel=4)).reason == "unsupported"


def test_a_dataset_with_unusable_numbers_is_refused() -> None:
    one: Dataset = dataset(DEEP)
    data = file_bytes(one).replace(struct.pack("<HH2sH", 0x28, 0x100, b"US", 2) + b"\x10\0", b"", 1)
    assert fault(data).reason == "undecodable"
