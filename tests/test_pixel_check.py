"""Text in pixels keeps an object out, or is blanked; what cannot be looked at does not pass."""

import struct
from collections.abc import Callable
from typing import Any, Literal

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from imaging.deidentify.options import DeidentifyOptions
from imaging.deidentify.pixels import coded_frames
from imaging.deidentify.pixels.blank import FLOATING
from imaging.deidentify.pixels.coded_frames import coded_frame
from imaging.deidentify.pixels.pixel_check import check_pixels
from imaging.dicom.codestream import FRAME_MARKERS
from imaging.dicom.dicom_object import open_object
from imaging.dicom.jpeg_segments import segments
from imaging.dicom.parse import parse
from imaging.dicom.pixels import layout_of, stored_frame
from imaging.errors import DataFault
from tests.codestreams import LOSSLESS
from tests.dicom_objects import compressed, dataset, file_bytes, made, stored_frames

BLANK = DeidentifyOptions(burned_in="blank")
SIDE = 160


def plain(kind: Any = np.int16) -> NDArray[Any]:
    """Return noise without any text."""
    noise = np.random.default_rng(0).normal(100, 8, (SIDE, SIDE))
    return np.rint(noise).astype(kind)


def written(frame: NDArray[Any], value: float = 250, text: str = "DOE JOHN 1948") -> NDArray[Any]:
    """Return a copy with a text across its middle."""
    alpha = np.zeros(frame.shape[:2], np.uint8)
    cv2.putText(alpha, text, (8, 84), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    share = (alpha / 255.0)[(...,) + (None,) * (frame.ndim - 2)]
    return np.rint(frame * (1 - share) + value * share).astype(frame.dtype)


def checked(data: bytes, options: DeidentifyOptions | None = None) -> Dataset:
    return check_pixels(parse(data), data, options or DeidentifyOptions())


def reason(data: bytes, options: DeidentifyOptions | None = None) -> str:
    with pytest.raises(DataFault) as caught:
        checked(data, options)
    return caught.value.reason


def again(dataset: Dataset) -> bytes:
    """Return a data set as the bytes of a file again."""
    syntax = dataset.file_meta.TransferSyntaxUID
    return file_bytes(dataset, syntax)


def test_an_image_without_text_passes_as_it_is() -> None:
    assert np.frombuffer(checked(made(plain())).PixelData, np.int16).tolist() == plain().ravel().tolist()


def test_an_image_with_text_is_kept_out() -> None:
    assert reason(made(written(plain()))) == "burned-in-text"


def test_no_is_not_trusted() -> None:
    assert reason(made(written(plain()), BurnedInAnnotation="NO")) == "burned-in-text"


def test_yes_is_believed_without_a_look() -> None:
    assert reason(made(plain(), BurnedInAnnotation="YES")) == "burned-in-text"


@pytest.mark.parametrize("options", [DeidentifyOptions(), DeidentifyOptions(burned_in="blank")])
@pytest.mark.parametrize("kind", ["LABEL", "OVERVIEW"])
def test_what_shows_the_label_of_a_slide_is_kept_out(kind: str, options: DeidentifyOptions) -> None:
    # PS3.3 C.8.12.4.1.1: an overview includes at least part of the label; bar codes are no text that can be blanked.
    slide = made(plain(), Modality="SM", ImageType=["ORIGINAL", "PRIMARY", kind, "NONE"])
    assert reason(slide, options) == "burned-in-text"


@pytest.mark.parametrize("kind", ["VOLUME", "THUMBNAIL"])
def test_what_does_not_show_the_label_of_a_slide_is_searched(kind: str) -> None:
    checked(made(plain(), Modality="SM", ImageType=["ORIGINAL", "PRIMARY", kind, "NONE"]))


def test_dark_text_in_an_inverted_image_is_detected() -> None:
    inverted = 300 - written(plain())
    assert reason(made(inverted, PhotometricInterpretation="MONOCHROME1")) == "burned-in-text"


def test_text_in_one_of_many_frames_is_detected() -> None:
    frames = np.stack([plain(), plain(), written(plain()), plain()])
    assert reason(made(frames)) == "burned-in-text"


def test_text_on_a_black_frame_is_detected() -> None:
    assert reason(made(written(np.zeros((SIDE, SIDE), np.uint8), 255))) == "burned-in-text"


def test_text_in_colour_is_detected() -> None:
    frame = np.repeat(plain(np.uint8)[..., None], 3, 2)
    assert reason(made(written(frame))) == "burned-in-text"


def in_palette(indices: NDArray[np.uint8], *colours: bytes) -> bytes:
    """Return an object whose palette has the red, the green and the blue of 256 entries."""
    names = ("Red", "Green", "Blue")
    tables = {f"{name}PaletteColorLookupTableData": one for name, one in zip(names, colours, strict=True)}
    descriptors = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8] for name in names}
    return made(indices, PhotometricInterpretation="PALETTE COLOR", **tables, **descriptors)


def test_text_in_a_palette_is_seen_as_it_is_shown() -> None:
    # Only the palette tells that entries of odd numbers are bright: among noise the last bit shows nothing.
    is_text = written(np.zeros((SIDE, SIDE), np.uint8), 255) > 127
    indices = (np.random.default_rng(0).integers(0, 128, (SIDE, SIDE)) * 2 + is_text).astype(np.uint8)
    checked(made(indices))
    palette = b"\x0a\xff" * 128
    assert reason(in_palette(indices, palette, palette, palette)) == "burned-in-text"


@pytest.mark.parametrize("colour", [0, 100, 255])
def test_text_in_one_colour_of_a_palette_is_detected(colour: int) -> None:
    # Whoever takes the palette away sees the indices, and readers of label maps look at nothing else.
    indices = written(plain(np.uint8))
    flat = bytes([colour]) * 256
    assert reason(in_palette(indices, flat, flat, flat)) == "burned-in-text"


def test_text_under_padding_beyond_the_stored_bits_is_detected() -> None:
    # What is written is 12 bits of each value (PS3.5 8.1.1), so that is what is searched.
    low = written(plain(np.uint16), 250)
    high = np.random.default_rng(1).integers(1, 16, low.shape).astype(np.uint16) << 12
    padding = {"PixelPaddingValue": 0x1000, "PixelPaddingRangeLimit": 0xFFFF}
    assert reason(made(low | high, BitsStored=12, **padding)) == "burned-in-text"


def test_text_of_padding_beyond_the_stored_bits_is_detected() -> None:
    is_text = written(np.zeros((SIDE, SIDE), np.uint8), 255) > 127
    # The bits that are stored show nothing; where there is padding, readers show background.
    stored = plain(np.uint16) + np.uint16(0x1000) * is_text
    checked(made(stored, BitsStored=12))
    padding = {"PixelPaddingValue": 0x1000, "PixelPaddingRangeLimit": 0x1FFF}
    assert reason(made(stored, BitsStored=12, **padding)) == "burned-in-text"


def floating(stored: NDArray[Any]) -> bytes:
    """Return an object of Float or Double Float Pixel Data (PS3.3 C.7.6.24 and C.7.6.25)."""
    keyword, vr = FLOATING[stored.itemsize * 8]
    one = dataset(np.zeros(stored.shape, np.uint8), BitsAllocated=stored.itemsize * 8, PixelData=None)
    for name in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(one, name)
    one.add_new(keyword, vr, stored.tobytes())
    return file_bytes(one)


@pytest.mark.parametrize("value", [np.float32(-3.4e38), np.float32(1e5), np.nan, np.inf, -np.inf])
def test_one_extreme_value_hides_no_text_in_floating_point_pixels(value: float) -> None:
    frame = written(plain(np.float32))
    frame[0, 0] = value
    assert reason(floating(frame)) == "burned-in-text"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_text_of_what_is_no_number_is_detected(value: float) -> None:
    frame = written(np.zeros((SIDE, SIDE)))
    assert reason(floating(np.where(frame > 128, value, 0.0))) == "burned-in-text"


def test_text_finer_than_float32_is_detected() -> None:
    frame = np.where(written(np.zeros((SIDE, SIDE))) > 128, 1e8 + 2, 1e8)
    assert reason(floating(frame)) == "burned-in-text"


@pytest.mark.parametrize(("kind", "value"), [(np.int32, 2**31 - 1), (np.int32, -(2**31)), (np.uint32, 2**20)])
def test_one_extreme_value_hides_no_text_in_wide_integers(kind: Any, value: int) -> None:
    frame = written(plain(kind))
    frame[0, 0] = value
    assert reason(made(frame)) == "burned-in-text"


def test_wide_padding_hides_no_faint_text() -> None:
    frame = written(plain() * 10, 1300)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    frame[(rows - 80) ** 2 + (columns - 80) ** 2 > 80**2] = -32768
    assert reason(made(frame)) == "burned-in-text"


ENCODERS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    JPEGBaseline8Bit: lambda x: imagecodecs.jpeg8_encode(x, level=95),
    JPEGLossless: lambda x: LOSSLESS[JPEGLossless](x, 8),
    JPEGLosslessSV1: lambda x: LOSSLESS[JPEGLosslessSV1](x, 8),
    JPEGLSLossless: lambda x: LOSSLESS[JPEGLSLossless](x, 8),
    JPEGLSNearLossless: lambda x: imagecodecs.jpegls_encode(x, level=2),
}


def cut(codestream: bytes, rows: int, columns: int) -> bytes:
    """Return a codestream of JPEG whose frame header counts fewer rows or columns (T.81 B.2.2) than are coded."""
    for marker, start, _ in segments(codestream):
        if marker in FRAME_MARKERS:
            return codestream[: start + 1] + struct.pack(">HH", rows, columns) + codestream[start + 5 :]
    raise ValueError


@pytest.mark.parametrize("syntax", ENCODERS)
def test_rows_that_a_codestream_does_not_count_do_not_pass(syntax: str) -> None:
    frame = plain(np.uint8)
    data = compressed([cut(ENCODERS[syntax](frame), 64, SIDE)], frame[:64], syntax)
    assert reason(data) == "surplus-data"


@pytest.mark.parametrize("syntax", ENCODERS)
@pytest.mark.parametrize("rows", [1, 64, 121])
@pytest.mark.parametrize("level", [0, 100, 128])
def test_a_whole_codestream_passes_whatever_it_ends_with(syntax: str, rows: int, level: int) -> None:
    frame = plain(np.uint8)[:rows, :77].copy()
    frame[rows // 2 :] = level
    for stored in (frame, np.full_like(frame, level)):
        checked(compressed([ENCODERS[syntax](stored)], stored, syntax))


@pytest.mark.parametrize("syntax", ENCODERS)
def test_one_decoding_shows_that_a_codestream_is_whole(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded_frames, "altered_scans", lambda frame: pytest.fail("decoded again"))
    checked(compressed([ENCODERS[syntax](plain(np.uint8))], plain(np.uint8), syntax))


@pytest.mark.parametrize("sampling", ["444", "420"])
def test_a_whole_codestream_of_colour_passes(sampling: Literal["444", "420"]) -> None:
    stored = np.stack([np.roll(plain(np.uint8), shift) for shift in range(3)], 2)
    frame = imagecodecs.jpeg8_encode(stored, subsampling=sampling)
    checked(compressed([frame], stored, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"))


def tiled(one: bytes, other: bytes, rest: bytes = b"", *, opened: bool = False) -> bytes:
    """Return JPEG 2000 of two tiles, one above the other (T.800, A.5.1), the last with bytes behind its packets."""
    at = one.index(b"\xff\x90")
    head = bytearray(one[:at])
    struct.pack_into(">I", head, 12, 2 * struct.unpack_from(">I", head, 12)[0])
    second = other[other.index(b"\xff\x90") : -2] + rest
    length = 0 if opened else len(second)
    return bytes(head) + one[at:-2] + second[:4] + struct.pack(">HI", 1, length) + second[10:] + one[-2:]


JPEG_2000: dict[str, Callable[[NDArray[Any]], bytes]] = {
    JPEG2000Lossless: lambda x: imagecodecs.jpeg2k_encode(x, codecformat="j2k", reversible=True),
    JPEG2000: lambda x: imagecodecs.jpeg2k_encode(x, codecformat="j2k", level=60),
    HTJ2KLossless: lambda x: imagecodecs.htj2k_encode(x, reversible=True),
}


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("rest", [b"DOE^", b"Doe^Johanna 4711", b"Doe^Johanna 4711" + bytes(30)])
@pytest.mark.parametrize("syntax", JPEG_2000)
def test_bytes_behind_the_packets_of_a_tile_do_not_pass(syntax: str, rest: bytes, opened: bool) -> None:
    halves = plain(np.uint8)[:64], plain(np.uint8)[64:128]
    one, other = (JPEG_2000[syntax](half.copy()) for half in halves)
    stored = np.concatenate(halves)
    checked(compressed([tiled(one, other, opened=opened)], stored, syntax))
    assert reason(compressed([tiled(one, other, rest, opened=opened)], stored, syntax)) == "surplus-data"


@pytest.mark.parametrize("syntax", JPEG_2000)
@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("rows", [1, 40, 121])
def test_whole_tiles_pass_whatever_they_end_with(syntax: str, rows: int, level: int) -> None:
    frame = plain(np.uint8)[:rows, :77].copy()
    frame[rows // 3 :] = level
    for stored in (frame, np.full_like(frame, level), np.where(frame > 100, level, 3).astype(np.uint8)):
        opened = open_object(compressed([JPEG_2000[syntax](stored)], stored, syntax))
        assert not coded_frame(opened, layout_of(opened.attributes), 0)[1]


HIDDEN = {"rows": (145, 160), "columns": (160, 145)}


@pytest.mark.parametrize("side", HIDDEN)
def test_text_that_a_decoder_cuts_off_the_last_blocks_is_detected(side: str) -> None:
    # Blocks of subsampled components cover 16 rows and columns together (T.81, A.2.4).
    rows, columns = HIDDEN[side]
    frame = np.repeat(plain(np.uint8)[..., None], 3, 2)
    cv2.putText(frame, "DOE JOHN 1948", (8, 157), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (250,) * 3, 1, cv2.LINE_AA)
    stored = np.ascontiguousarray(frame.transpose(1, 0, 2) if side == "columns" else frame)
    codestream = cut(imagecodecs.jpeg8_encode(stored, level=95, subsampling="420"), rows, columns)
    seen = stored[:rows, :columns].copy()
    checked(made(seen))
    data = compressed([codestream], seen, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    assert reason(data) == "burned-in-text"


@pytest.mark.parametrize("shape", [(145, 160), (160, 153), (129, 131), (1, 1), (16, 3)])
@pytest.mark.parametrize("syntax", ENCODERS)
def test_a_frame_is_searched_with_its_last_blocks(syntax: str, shape: tuple[int, int]) -> None:
    frame = plain(np.uint8)[: shape[0], : shape[1]].copy()
    codestream = ENCODERS[syntax](frame)
    opened = open_object(compressed([codestream], frame, syntax))
    layout = layout_of(opened.attributes)
    stored, goes_on = coded_frame(opened, layout, 0)
    block = 8 if syntax == JPEGBaseline8Bit else 1
    assert stored.shape == tuple(-(-side // block) * block for side in shape) and not goes_on
    assert np.array_equal(stored[: shape[0], : shape[1]], stored_frame(opened, layout, 0))


def test_large_text_in_a_large_frame_is_detected() -> None:
    large = cv2.resize(written(plain(np.uint8)), (1600, 1600), interpolation=cv2.INTER_CUBIC)
    assert reason(made(large)) == "burned-in-text"


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (9, 9), (33, 70)])
def test_tiny_frames_pass(shape: tuple[int, int]) -> None:
    assert checked(made(np.zeros(shape, np.uint8))).Rows == shape[0]


def test_an_object_without_pixels_passes() -> None:
    assert "PixelData" not in checked(made(plain(), PixelData=None))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_pixels_that_cannot_be_decoded_do_not_pass(syntax: str) -> None:
    broken = dataset(plain(), PixelData=bytes(10))
    if syntax == JPEGLSLossless:
        broken = dataset(plain())
        broken.file_meta = parse(made(plain())).file_meta
        broken.compress(JPEGLSLossless, generate_instance_uid=False)
        broken.PixelData = broken.PixelData[:60] + bytes(len(broken.PixelData) - 60)
    assert reason(file_bytes(broken, syntax)) == "burned-in-doubt"


def test_a_fault_shows_no_value_of_the_file() -> None:
    with pytest.raises(DataFault) as caught:
        checked(made(written(plain()), PatientID="SECRET77"))
    assert "SECRET77" not in str(caught.value) and "DOE" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_blanked_text_is_gone_and_the_rest_stays(syntax: str) -> None:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    before = written(plain()).astype(f"{order}i2")
    (after,) = stored_frames(again(checked(made(before, syntax), BLANK)))
    assert (
        after.dtype.kind == "i" and (after[:60] == before[:60]).all() and (after[110:] == before[110:]).all()
    )
    assert after.max() < 200
    assert reason(made(before, syntax)) == "burned-in-text"
    checked(again(checked(made(before, syntax), BLANK)))


def test_blanked_text_of_bytes_is_gone_in_big_endian_too() -> None:
    data = made(written(plain(np.uint8)), ExplicitVRBigEndian)
    (after,) = stored_frames(again(checked(data, BLANK)))
    assert after.max() < 200


def test_a_region_is_blanked_on_all_frames() -> None:
    frames = np.stack([plain(), written(plain()), plain()])
    first, second, _ = stored_frames(again(checked(made(frames), BLANK)))
    assert second.max() < 200 and (first == first.min()).sum() > 500


def test_black_is_the_greatest_value_where_small_values_are_bright() -> None:
    inverted = 300 - written(plain())
    data = made(inverted, PhotometricInterpretation="MONOCHROME1")
    (after,) = stored_frames(again(checked(data, BLANK)))
    assert (after == inverted.max()).sum() > 500


def test_what_was_compressed_is_blanked_and_written_native() -> None:
    one = parse(made(written(plain())))
    one.compress(JPEGLSLossless, generate_instance_uid=False)
    data = file_bytes(one, JPEGLSLossless)
    blanked = checked(data, BLANK)
    assert blanked.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    (after,) = stored_frames(again(blanked))
    assert after.max() < 200


def test_blanked_colour_is_rgb() -> None:
    frame = written(np.repeat(plain(np.uint8)[..., None], 3, 2))
    blanked = checked(made(frame, PhotometricInterpretation="RGB"), BLANK)
    assert (blanked.PhotometricInterpretation, blanked.PlanarConfiguration) == ("RGB", 0)
    (after,) = stored_frames(again(blanked))
    assert after.max() < 200


def test_yes_without_detectable_text_is_kept_out() -> None:
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    assert reason(made(nothing, BurnedInAnnotation="YES"), BLANK) == "burned-in-text"
