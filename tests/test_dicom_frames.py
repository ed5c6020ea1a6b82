"""Stored values of each frame, whatever the transfer syntax, the bits, and how the frames lie in the file."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging.buffer import FileBuffer
from imaging.dicom.codecs import FAST, check_decoders
from imaging.dicom.limits import LIMITS, Limits
from imaging.dicom.opened import open_object
from imaging.dicom.pixels import layout_of, stored_frame
from imaging.errors import EnvironmentFault
from tests.dicom_objects import NATIVE, compressed, dataset, fault, file_bytes, made, ramp, stored_frames

Encode = Callable[[NDArray[Any]], bytes]
GREY = ramp((40, 30), np.uint8)
DEEP = ramp((40, 30), np.uint16, step=53)
SEVERAL = ramp((3, 16, 24), np.uint16, step=53)


def rle(stored: NDArray[Any]) -> bytes:
    one = dataset(stored)
    one.file_meta = dcmread(BytesIO(file_bytes(one))).file_meta
    one.compress(RLELossless, encoding_plugin="pydicom")
    (fragment,) = open_object(file_bytes(one, RLELossless)).pixels[1:]
    return bytes(file_bytes(one, RLELossless)[fragment[0] : sum(fragment)])


def unsigned(stored: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return the bits as codecs without a sign take them."""
    mask = np.uint16(2**bits - 1)
    return np.asarray(stored.view(f"u{stored.itemsize}") & mask, f"u{stored.itemsize}")


LOSSLESS: dict[str, Callable[[NDArray[Any], int], bytes]] = {
    JPEGLossless: lambda x, bits: imagecodecs.ljpeg_encode(unsigned(x, bits), bitspersample=bits),
    JPEGLosslessSV1: lambda x, bits: imagecodecs.jpeg8_encode(
        unsigned(x, bits), lossless=True, bitspersample=bits
    ),
    JPEGLSLossless: lambda x, bits: imagecodecs.jpegls_encode(unsigned(x, bits)),
    JPEGLSNearLossless: lambda x, bits: imagecodecs.jpegls_encode(unsigned(x, bits), level=0),
    JPEG2000Lossless: lambda x, bits: imagecodecs.jpeg2k_encode(
        x, codecformat="j2k", reversible=True, bitspersample=bits
    ),
    JPEG2000: lambda x, bits: imagecodecs.jpeg2k_encode(
        x, codecformat="jp2", reversible=True, bitspersample=bits
    ),
    HTJ2KLossless: lambda x, bits: imagecodecs.htj2k_encode(x, reversible=True),
    HTJ2KLosslessRPCL: lambda x, bits: imagecodecs.htj2k_encode(x, reversible=True),
    HTJ2K: lambda x, bits: imagecodecs.htj2k_encode(x, reversible=True),
    RLELossless: lambda x, bits: rle(x),
}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_syntax_gives_back_what_was_encoded(syntax: str, bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
    stored = (ramp((40, 30), np.int64, step=53) % 2**bits + low).astype(kind)
    data = compressed([LOSSLESS[syntax](stored, bits)], stored, syntax, BitsStored=bits, HighBit=bits - 1)
    (found,) = stored_frames(data)
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_every_native_syntax_gives_back_what_was_written(syntax: str, kind: Any) -> None:
    stored = ramp((5, 7), kind, step=9973)
    if syntax == ExplicitVRBigEndian:
        one = dataset(stored)
        swapped = stored.byteswap().tobytes()
        # pydicom writes the words as they are given.
        one.PixelData = stored.tobytes() + b"\0" if stored.itemsize == 1 else swapped
        data = file_bytes(one, syntax)
    else:
        data = made(stored, syntax)
    (found,) = stored_frames(data)
    np.testing.assert_array_equal(found, stored)


def plain_jpeg(stored: NDArray[Any], bits: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(stored, level=95, bitspersample=bits))


@pytest.mark.parametrize(
    ("syntax", "bits", "plugin"), [(JPEGBaseline8Bit, 8, "pylibjpeg"), (JPEGExtended12Bit, 12, "pylibjpeg")]
)
def test_lossy_jpeg_is_what_pydicom_decodes(syntax: str, bits: int, plugin: str) -> None:
    stored = (GREY if bits == 8 else DEEP % 4096).astype(np.uint8 if bits == 8 else np.uint16)
    data = compressed([plain_jpeg(stored, bits)], stored, syntax, BitsStored=bits)
    expected, _ = get_decoder(syntax).as_array(dcmread(BytesIO(data)), decoding_plugin=plugin)
    (found,) = stored_frames(data)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), 0, 1 if bits == 8 else 2)


def test_every_syntax_that_pydicom_decodes_is_tested() -> None:
    known = set()
    for syntax in AllTransferSyntaxes:
        try:
            get_decoder(syntax)
        except NotImplementedError:
            continue
        known.add(str(syntax))
    assert known == {*LOSSLESS, *NATIVE, JPEGBaseline8Bit, JPEGExtended12Bit}
    assert {*FAST} == {*LOSSLESS, JPEGBaseline8Bit, JPEGExtended12Bit}


def test_all_decoders_are_installed() -> None:
    check_decoders()


def test_a_missing_codec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecodecs.JPEGLS, "available", False)
    with pytest.raises(EnvironmentFault, match=r"imagecodecs without jpegls.*install"):
        check_decoders()


def test_a_missing_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_decoder(JPEG2000)), "is_available", property(lambda _: False))
    with pytest.raises(EnvironmentFault, match=r"JPEG 2000.*install"):
        check_decoders()


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", range(1, 17))
def test_odd_bits_keep_their_sign_whatever_lies_above(bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    wanted = (ramp((8, 8), np.int64, step=977) % 2**bits + low).astype(np.int16 if signed else np.uint16)
    overlay = (np.uint16(0xFFFF) << np.uint16(bits)) if bits < 16 else np.uint16(0)
    noisy = wanted.view(np.uint16) ^ (ramp((8, 8), np.uint16, step=7919) & overlay)
    data = made(noisy, BitsStored=bits, PixelRepresentation=int(signed))
    (found,) = stored_frames(data)
    np.testing.assert_array_equal(found, wanted)
    swapped = made(noisy.byteswap(), ExplicitVRBigEndian, BitsStored=bits, PixelRepresentation=int(signed))
    (found,) = stored_frames(swapped)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("high_bit", [11, 13, 15])
def test_a_value_ends_at_high_bit(high_bit: int, signed: bool) -> None:
    low = -2048 if signed else 0
    wanted = (ramp((8, 8), np.int64, step=977) % 4096 + low).astype(np.int16 if signed else np.uint16)
    shifted = (wanted.view(np.uint16) & 0xFFF) << np.uint16(high_bit - 11) | np.uint16(high_bit > 11)
    data = made(shifted, BitsStored=12, HighBit=high_bit, PixelRepresentation=int(signed))
    (found,) = stored_frames(data)
    np.testing.assert_array_equal(found, wanted)


def test_a_high_bit_that_is_too_low_is_passed_over() -> None:
    (found,) = stored_frames(made(DEEP, HighBit=7))
    np.testing.assert_array_equal(found, DEEP)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_a_codestream_that_does_not_reach_high_bit_holds_the_value_at_its_end(syntax: str) -> None:
    stored = DEEP % 4096
    data = compressed([LOSSLESS[syntax](stored, 12)], stored, syntax, BitsStored=12, HighBit=15)
    (found,) = stored_frames(data)
    np.testing.assert_array_equal(found, stored)


def test_an_unsigned_codestream_of_signed_pixels_keeps_their_sign() -> None:
    stored = (DEEP % 4096).astype(np.int16) - np.int16(2048)
    frame = imagecodecs.jpeg2k_encode(
        unsigned(stored, 12), codecformat="j2k", reversible=True, bitspersample=12
    )
    data = compressed([frame], stored, JPEG2000Lossless, BitsStored=12)
    (found,) = stored_frames(data)
    np.testing.assert_array_equal(found, stored)


def test_the_mismatched_file_of_pydicom_is_read_as_it_is_meant() -> None:
    path = Path(str(get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)))
    (found,) = stored_frames(path.read_bytes())
    np.testing.assert_array_equal(found, dcmread(path).pixel_array)
    assert found.min() == -2000


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
    (found,) = stored_frames(compressed([], DEEP, JPEGLSLossless, value))
    np.testing.assert_array_equal(found, DEEP)


def test_frames_by_the_extended_offset_table() -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]
    value, offsets, lengths = encapsulate_extended(frames)
    told = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    data = compressed([], SEVERAL, JPEGLSLossless, value, **told)
    np.testing.assert_array_equal(list(stored_frames(data)), SEVERAL)


def test_the_extended_offset_table_tells_which_fragments_belong_together() -> None:
    # The ends of codestreams would tell it too: here the first half of a frame ends like a whole one.
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]
    pieces = [part for one in frames for part in (one[:40] + b"", one[40:])]
    value = encapsulate(pieces, has_bot=False)
    starts = np.cumsum([0, *(len(part) + len(part) % 2 + 8 for part in pieces)])[0:-1:2]
    told = {"ExtendedOffsetTable": starts.astype("<u8").tobytes(), "ExtendedOffsetTableLengths": bytes(24)}
    data = compressed([], SEVERAL, JPEGLSLossless, value, **told)
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


@pytest.mark.parametrize("end", range(13, 700, 13))
def test_a_codestream_that_is_cut_is_never_an_image(end: int) -> None:
    for syntax in (JPEGLSLossless, JPEGLosslessSV1, HTJ2KLossless, RLELossless):
        frame = LOSSLESS[syntax](DEEP, 16)
        data = compressed([frame[: min(end, len(frame) // 2)]], DEEP, syntax)
        assert fault(data).reason in {"undecodable", "truncated"}, syntax


@pytest.mark.parametrize(
    ("keyword", "kind"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_floating_point_pixels_are_read(keyword: str, kind: Any, syntax: str) -> None:
    stored = np.linspace(-1, 1, 24).astype(kind).reshape(2, 3, 4)
    told = {"PixelData": None, keyword: stored.tobytes(), "PixelRepresentation": None, "BitsStored": None}
    np.testing.assert_array_equal(list(stored_frames(made(stored, syntax, **told))), stored)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_floating_point_pixels_that_cannot_be_counted_with_are_a_fault(bad: float) -> None:
    stored = np.full((4, 4), bad)
    told = {"PixelData": None, "DoubleFloatPixelData": stored.tobytes(), "BitsStored": None}
    assert fault(made(stored, **told)).reason == "undecodable"


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
    assert fault(made(DEEP, **changes)).reason in {"undecodable", "truncated"}


def test_four_samples_are_not_supported() -> None:
    assert fault(made(DEEP, SamplesPerPixel=4)).reason == "unsupported"


def peak_mib(act: Callable[[], object]) -> float:
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        (Limits(rows_columns=39), {}),
        (Limits(frame_bytes=2399), {}),
        (Limits(frames=3), {"NumberOfFrames": 4}),
    ],
    ids=["rows", "frame", "frames"],
)
def test_each_limit_of_a_layout_refuses(
    limits: Limits, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.dicom.pixels.LIMITS", limits)
    assert fault(made(DEEP, **changes)).reason == "too-large"


def test_a_small_file_that_asks_for_terabytes_is_refused_before_memory_is_used() -> None:
    data = compressed([rle(GREY)], GREY, RLELossless, Rows=65535, Columns=65535, NumberOfFrames=1000)
    assert len(data) < 2500
    assert peak_mib(lambda: fault(data)) < 4
    assert fault(data).reason == "too-large"


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_a_codestream_larger_than_its_header_is_refused_before_memory_is_used(syntax: str) -> None:
    frame = bytearray(LOSSLESS[syntax](DEEP, 16))
    if syntax == JPEG2000Lossless:
        struct.pack_into(">2I", frame, 8, 20000, 20000)
    else:
        at = min(at for at in (frame.find(b"\xff\xf7"), frame.find(b"\xff\xc3")) if at > 0)
        struct.pack_into(">HH", frame, at + 5, 20000, 20000)
    data = compressed([bytes(frame)], DEEP, syntax)
    before = psutil.Process().memory_info().rss
    assert "20000 x 20000" in fault(data).detail
    assert psutil.Process().memory_info().rss - before < 2**26


def test_runs_that_never_end_are_stopped_where_the_frame_is_full() -> None:
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x05" * 2**20
    data = compressed([bomb], GREY, RLELossless)
    assert peak_mib(lambda: fault(data)) < 64


def deflated(plain: bytes) -> bytes:
    head = made(GREY, DeflatedExplicitVRLittleEndian)
    length = struct.unpack_from("<I", head, 140)[0]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return head[: 144 + length] + deflater.compress(plain) + deflater.flush()


def test_a_bomb_is_told_by_its_ratio() -> None:
    data = deflated(bytes(2**26))
    assert peak_mib(lambda: fault(data)) < 64
    assert fault(data).reason == "inflate-bomb"


def test_a_bomb_is_told_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.dicom.parse.LIMITS", Limits(inflated_bytes=1000))
    assert fault(made(GREY, DeflatedExplicitVRLittleEndian)).reason == "inflate-bomb"


def test_what_pydicom_would_have_to_hold_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.dicom.parse.LIMITS", Limits(parsed_bytes=1000))
    assert fault(made(GREY, ExplicitVRBigEndian)).reason == "too-large"
    list(stored_frames(made(GREY)))


def test_a_large_object_is_read_frame_by_frame(tmp_path: Path) -> None:
    head = made(ramp((1, 512, 512), np.uint16), NumberOfFrames=600)
    at, size = len(head) - 2 * 512**2, 600 * 2 * 512**2
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(head[: at - 4] + struct.pack("<I", size))
        file.truncate(at + size)
        file.seek(at + 599 * 2 * 512**2)
        file.write(ramp((512, 512), np.uint16).tobytes())
    process = psutil.Process()
    before = process.memory_info()
    one = open_object(FileBuffer().load(path, LIMITS.file_bytes))
    layout = layout_of(one.attributes)
    np.testing.assert_array_equal(stored_frame(one, layout, 0), 0)
    np.testing.assert_array_equal(stored_frame(one, layout, 599), ramp((512, 512), np.uint16))
    private = process.memory_info().rss - before.rss - (process.memory_info().shared - before.shared)
    assert private < 32 * 2**20


def test_a_large_object_of_fragments_is_read_frame_by_frame() -> None:
    frame = LOSSLESS[JPEGLSLossless](DEEP, 16)
    padded = [frame + b"\xff\xfe" for _ in range(40)]
    pieces = [part for one in padded for part in (one[:100] + bytes(0), one[100:] + bytes(2**20))]
    stacked = np.stack([DEEP] * 40)
    offsets = np.cumsum([0, *(len(part) + len(part) % 2 + 8 for part in pieces)])[0:-1:2]
    told = {"ExtendedOffsetTable": offsets.astype("<u8").tobytes(), "ExtendedOffsetTableLengths": bytes(320)}
    data = compressed([], stacked, JPEGLSLossless, encapsulate(pieces, has_bot=False), **told)
    one = open_object(data)
    layout = layout_of(one.attributes)
    assert peak_mib(lambda: stored_frame(one, layout, 20)) < 8


def test_a_dataset_with_unusable_numbers_is_refused() -> None:
    one: Dataset = dataset(DEEP)
    data = file_bytes(one).replace(struct.pack("<HH2sH", 0x28, 0x100, b"US", 2) + b"\x10\0", b"", 1)
    assert fault(data).reason == "undecodable"
