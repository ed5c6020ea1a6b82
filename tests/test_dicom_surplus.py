"""Pixel data that are more, or fewer, than the header says: refused with what they may be, or read with a finding."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    MPEG2MPML,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.dicom.parse import parse
from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from tests.codestreams import DEEP, GREY, LOSSLESS, SEVERAL
from tests.dicom_objects import (
    NATIVE,
    UNDEFINED,
    compressed,
    dataset,
    element,
    fault,
    file_bytes,
    images,
    item,
    made,
    ramp,
    stored_frames,
)

TWO = SEVERAL[:2]
COLOUR = np.full((8, 8, 3), 100, np.uint8)


def findings(data: bytes, modality: str = "CT") -> set[str]:
    return {code for one in read_dicom(data, modality) for code in one.findings}


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("count", [None, 1, 2])
def test_more_native_frames_than_the_header_counts_are_refused(syntax: str, count: int | None) -> None:
    # pydicom 3.0.2 returns all three with a warning, gdcm 3.2.6 the first: the header is wrong or the length.
    refused = fault(made(SEVERAL, syntax, NumberOfFrames=count))
    assert refused.reason == "surplus-data"
    assert f"enough for 3 frames, NumberOfFrames is {count or 1} or missing" in refused.detail


def test_values_of_16_bits_under_a_header_of_8_are_refused() -> None:
    refused = fault(made(GREY, PixelData=GREY.astype("<u2").tobytes()))
    assert refused.reason == "surplus-data"
    assert "as many as of 16 bits a sample, BitsAllocated is 8" in refused.detail


def test_the_same_of_a_picture_that_ends_in_black_is_refused() -> None:
    half = GREY.copy()
    half[20:] = 0
    assert fault(made(half, PixelData=half.astype("<u2").tobytes())).reason == "surplus-data"


def test_three_bytes_a_pixel_under_a_photometric_of_two_are_refused() -> None:
    # Whether they are RGB or YBR_FULL the file does not say. pydicom 3.0.2 refuses it too; gdcm 3.2.6 mixes the pixels.
    refused = fault(made(COLOUR, PhotometricInterpretation="YBR_FULL_422"))
    assert refused.reason == "surplus-data"
    assert "3 a pixel, as of RGB or YBR_FULL, YBR_FULL_422 has 2" in refused.detail


def test_rows_that_the_header_does_not_count_are_refused() -> None:
    assert fault(made(DEEP, Rows=39)).reason == "surplus-data"


def test_less_than_a_row_of_anything_is_padding() -> None:
    data = made(DEEP, PixelData=DEEP.tobytes() + b"x" * (2 * 30 - 2))
    assert findings(data) == {"padded-pixels"}
    np.testing.assert_array_equal(list(stored_frames(data)), [DEEP])


def test_less_than_a_frame_of_zeros_is_padding() -> None:
    data = made(SEVERAL, PixelData=SEVERAL.tobytes() + bytes(SEVERAL[0].nbytes - 2))
    assert findings(data) == {"padded-pixels"}
    np.testing.assert_array_equal(list(stored_frames(data)), SEVERAL)


def test_a_whole_frame_of_zeros_is_a_frame() -> None:
    assert fault(made(DEEP, PixelData=DEEP.tobytes() + bytes(DEEP.nbytes))).reason == "surplus-data"


def test_the_padded_file_of_pydicom_is_read() -> None:
    # PS3.5 8.1.1, note: older applications padded, and receivers should accept it.
    padded, plain = (
        Path(str(get_testdata_file(name, download=False))).read_bytes()
        for name in ("MR_small_padded.dcm", "MR_small.dcm")
    )
    assert (findings(padded, "MR"), findings(plain, "MR")) == ({"padded-pixels"}, set())
    np.testing.assert_array_equal(list(stored_frames(padded)), list(stored_frames(plain)))


@pytest.mark.parametrize("syntax", NATIVE)
def test_the_byte_that_makes_a_length_even_is_no_finding(syntax: str) -> None:
    stored = ramp((5, 5), np.uint8)
    assert findings(made(stored, syntax, PixelData=stored.tobytes() + b"\0")) == set()


def test_odd_frames_that_are_padded_one_by_one_are_refused() -> None:
    # PS3.5 8.1.1: the padding follows the last frame. Read without a gap, the second frame begins a byte too early.
    frames = ramp((3, 5, 5), np.uint8)
    value = b"".join(frame.tobytes() + b"\0" for frame in frames)
    assert fault(made(frames, PixelData=value)).reason == "surplus-data"


def test_frames_of_single_bits_that_begin_at_bytes_are_refused() -> None:
    # PS3.5 8.1.1: bits of frames follow each other without a gap. dcmqi's issue 341: 8 frames of 13 x 12 in 160 bytes.
    value = bytes(range(156)) + bytes(4)
    stored = np.zeros((8, 13, 12), np.uint8)
    assert fault(made(stored, BitsAllocated=1, BitsStored=1, PixelData=value)).reason == "surplus-data"
    assert len(list(stored_frames(made(stored, BitsAllocated=1, BitsStored=1, PixelData=value[:156])))) == 8


@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 20, 100), (3, 4, 8)])
def test_padding_behind_bits_that_can_only_be_at_the_end_is_padding(shape: tuple[int, ...]) -> None:
    bits = ramp(shape, np.uint8, step=7) % 3 % 2
    packed = pack_bits(bits)
    data = made(bits, BitsAllocated=1, BitsStored=1, PixelData=packed + bytes(2))
    assert findings(data) == {"padded-pixels"}
    np.testing.assert_array_equal(list(stored_frames(data)), bits)


@pytest.mark.parametrize(("rows", "columns", "present"), [(5, 5, 6), (16, 13, 32), (9, 60, 72)])
def test_rows_of_bits_that_may_begin_at_bytes_are_refused(rows: int, columns: int, present: int) -> None:
    stored = np.zeros((rows, columns), np.uint8)
    assert (
        fault(made(stored, BitsAllocated=1, BitsStored=1, PixelData=bytes(present))).reason == "surplus-data"
    )


@pytest.mark.parametrize(("tag", "vr"), [(0x7FE00008, b"OF"), (0x7FE00009, b"OD")])
def test_integers_beside_floating_point_pixels_are_refused(tag: int, vr: bytes) -> None:
    # PS3.3 C.7.6.3, C.7.6.24 and C.7.6.25 exclude each other.
    data = made(DEEP)
    at = data.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    floats = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, 8) + bytes(8)
    assert fault(data[:at] + floats + data[at:]).reason == "surplus-data"


def test_a_second_element_of_pixel_data_is_refused() -> None:
    # pydicom keeps the last of two, a reader that stops at the first one keeps that.
    data = made(DEEP)
    second = element(0x7FE00010, b"OW", (DEEP + 1).tobytes())
    assert fault(data + second).reason == "surplus-data"


def test_a_second_element_is_refused_behind_a_header_that_was_met() -> None:
    slices = [made(DEEP, SOPInstanceUID=f"1.2.3.{n}", PixelData=(DEEP + n).tobytes()) for n in range(1, 7)]
    for data in slices[:5]:
        assert findings(data) == set()
    second = element(0x7FE00010, b"OW", DEEP.tobytes())
    assert fault(slices[5] + second).reason == "surplus-data"
    assert fault(slices[5] + element(0xFFFCFFFC, b"OB", bytes(4)) + second).reason == "surplus-data"


IN_ORDER = {
    "padding": element(0xFFFCFFFC, b"OB", bytes(4)),  # Data Set Trailing Padding, PS3.10 7.2
    "a private element": element(0x7FE10010, b"LO", b"ACME"),
    "signatures": element(0xFFFAFFFA, b"SQ", bytes.fromhex("fe ff dd e0 00 00 00 00"), UNDEFINED),
}
"""Elements that may follow the pixel data, of which PS3.5 7.1 has all in ascending order of tags."""


@pytest.mark.parametrize("name", IN_ORDER)
def test_a_second_element_of_pixel_data_is_refused_behind_elements_in_order(name: str) -> None:
    # pydicom 3.0.2 keeps the last of the two here too.
    second = element(0x7FE00010, b"OW", (DEEP + 1).tobytes())
    assert findings(made(DEEP) + IN_ORDER[name]) == set()
    assert fault(made(DEEP) + IN_ORDER[name] + second).reason == "surplus-data"


def test_a_second_element_behind_padding_is_refused_in_implicit_form_and_behind_fragments() -> None:
    padding, second = (
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, 4) + bytes(4) for tag in (0xFFFCFFFC, 0x7FE00010)
    )
    assert fault(made(DEEP, ImplicitVRLittleEndian) + padding + second).reason == "surplus-data"
    data = compressed([LOSSLESS[JPEGLSLossless](DEEP, 16)], DEEP, JPEGLSLossless)
    second = element(0x7FE00010, b"OB", DEEP.tobytes())
    assert fault(data + IN_ORDER["padding"] + second).reason == "surplus-data"


REPEATED = {
    "Rows": element(0x00280010, b"US", struct.pack("<H", 20)),
    "BitsStored": element(0x00280101, b"US", struct.pack("<H", 8)),
    "PhotometricInterpretation": element(0x00280004, b"CS", b"MONOCHROME1 "),
    "NumberOfFrames": element(0x00280008, b"IS", b"2 "),
}
"""Elements in ascending order of tags (PS3.5 7.1) never follow the pixel data."""


@pytest.mark.parametrize("name", REPEATED)
def test_an_element_that_is_repeated_behind_the_pixel_data_is_refused(name: str) -> None:
    # pydicom 3.0.2 keeps the last of two; a reader that stops at the pixel data has the first.
    refused = fault(made(DEEP) + REPEATED[name])
    assert (refused.reason, refused.detail.split()[0]) == ("surplus-data", name)


@pytest.mark.parametrize("name", REPEATED)
def test_a_whole_parse_refuses_it_behind_elements_that_may_follow(name: str) -> None:
    padding = element(0xFFFCFFFC, b"OB", bytes(4))  # Data Set Trailing Padding, PS3.10 7.2
    with pytest.raises(DataFault, match="surplus-data"):
        parse(made(DEEP) + padding + REPEATED[name])


def test_a_repeated_element_is_refused_behind_a_header_that_was_met() -> None:
    slices = [made(DEEP, SOPInstanceUID=f"1.2.3.{n}", PixelData=(DEEP + n).tobytes()) for n in range(1, 7)]
    for data in slices[:5]:
        assert findings(data) == set()
    assert fault(slices[5] + REPEATED["Rows"]).reason == "surplus-data"


def test_stray_text_behind_the_pixel_data_is_not_quoted() -> None:
    refused = fault(made(DEEP) + b"DOE^JOHN" + bytes(8))
    assert "DO" not in refused.detail and "4f44" not in refused.detail.lower()


@pytest.mark.parametrize("behind", [bytes(512), element(0xFFFCFFFC, b"OB", bytes(4))])
def test_padding_behind_the_pixel_data_is_read(behind: bytes) -> None:
    assert findings(made(DEEP) + behind) == set()
    assert parse(made(DEEP) + behind).Rows == DEEP.shape[0]


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize("has_bot", [True, False])
def test_more_compressed_frames_than_the_header_counts_are_refused(
    syntax: str, count: int | None, has_bot: bool
) -> None:
    value = encapsulate([LOSSLESS[syntax](one, 16) for one in SEVERAL], has_bot=has_bot)
    refused = fault(compressed([], TWO, syntax, value, NumberOfFrames=count))
    assert refused.reason == "surplus-data"
    assert refused.detail == f"the fragments are those of 3 frames, NumberOfFrames is {count or 1} or missing"


@pytest.mark.parametrize("has_bot", [True, False])
def test_more_frames_of_several_fragments_are_refused(has_bot: bool) -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]
    value = encapsulate(frames, fragments_per_frame=2, has_bot=has_bot)
    assert fault(compressed([], TWO, JPEGLSLossless, value)).reason == "surplus-data"


def test_more_offsets_than_frames_are_refused() -> None:
    value, offsets, lengths = encapsulate_extended([LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL])
    changes = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    assert fault(compressed([], TWO, JPEGLSLossless, value, **changes)).reason == "surplus-data"


def test_a_frame_that_the_offsets_leave_out_is_refused() -> None:
    value = bytearray(encapsulate([LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]))
    # Two offsets of the three: the third codestream would belong to the second frame.
    value[4:8] = struct.pack("<I", 8)
    del value[16:20]
    assert fault(compressed([], TWO, JPEGLSLossless, bytes(value))).reason == "surplus-data"


def test_what_follows_the_end_of_the_last_frame_is_refused() -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in TWO]
    value = encapsulate([frames[0][:40], frames[0][40:], frames[1], b"DOE^JANE"], has_bot=False)
    assert fault(compressed([], TWO, JPEGLSLossless, value)).reason == "surplus-data"


@pytest.mark.parametrize("syntax", [name for name in LOSSLESS if name != RLELossless])
@pytest.mark.parametrize("padding", [b"", b"\0", bytes(13), b"\xff" * 100, b"DOE^JANE" * 999])
def test_two_codestreams_in_one_fragment_are_refused(syntax: str, padding: bytes) -> None:
    both = padding.join(LOSSLESS[syntax](one, 16) for one in TWO)
    assert fault(compressed([both], TWO[0], syntax)).reason == "surplus-data"


def test_a_thumbnail_in_a_codestream_is_no_second_one() -> None:
    plain = imagecodecs.jpeg8_encode(GREY)
    thumbnail = b"JFXX\0\x10" + imagecodecs.jpeg8_encode(GREY[:8, :8])
    frame = plain[:2] + struct.pack(">HH", 0xFFE0, 2 + len(thumbnail)) + thumbnail + plain[2:]
    (read,) = stored_frames(compressed([frame], GREY, JPEGBaseline8Bit))
    np.testing.assert_array_equal(read, imagecodecs.jpeg8_decode(plain))


APPLICATION, THUMBNAIL = 0xFFE1, imagecodecs.jpeg8_encode(GREY[:8, :8])


def with_segment(frame: bytes, marker: int, content: bytes) -> bytes:
    return frame[:2] + struct.pack(">HH", marker, 2 + len(content)) + content + frame[2:]


@pytest.mark.parametrize(
    "content", [THUMBNAIL * 2, b"Exif\0\0" + THUMBNAIL + THUMBNAIL, b"\xff\xd9\xff\xd8\xff"]
)
def test_several_thumbnails_in_a_codestream_are_no_second_one(content: bytes) -> None:
    plain = imagecodecs.jpeg8_encode(GREY)
    (read,) = stored_frames(compressed([with_segment(plain, APPLICATION, content)], GREY, JPEGBaseline8Bit))
    np.testing.assert_array_equal(read, imagecodecs.jpeg8_decode(plain))


def test_a_codestream_in_a_comment_of_jpeg_2000_is_no_second_one() -> None:
    plain = LOSSLESS[JPEG2000Lossless](GREY, 8)
    at = plain.index(b"\xff\x90")
    comment = b"\0\1" + plain[-2:] + plain
    frame = plain[:at] + struct.pack(">HH", 0xFF64, 2 + len(comment)) + comment + plain[at:]
    np.testing.assert_array_equal(list(stored_frames(compressed([frame], GREY, JPEG2000Lossless))), [GREY])
    assert fault(compressed([frame + plain], GREY, JPEG2000Lossless)).reason == "surplus-data"


def test_a_codestream_behind_one_with_thumbnails_is_refused() -> None:
    frame = with_segment(imagecodecs.jpeg8_encode(GREY), APPLICATION, THUMBNAIL * 2)
    assert fault(compressed([frame + bytes(50) + frame], GREY, JPEGBaseline8Bit)).reason == "surplus-data"


def with_rows(frame: bytes, rows: int) -> bytes:
    """Return a codestream of JPEG-LS whose frame header (T.87, C.2.2) says so many rows."""
    at = frame.index(b"\xff\xf7") + 5
    return frame[:at] + struct.pack(">H", rows) + frame[at + 2 :]


@pytest.mark.parametrize("rows", [8, 20, 32])
@pytest.mark.parametrize("stored", [DEEP, ramp((40, 30), np.uint8)])
def test_coded_rows_of_grey_jpeg_ls_that_no_header_counts_are_refused(
    rows: int, stored: NDArray[Any]
) -> None:
    # CharLS 2.4 refuses them ("still contains encoded data"); pylibjpeg-libjpeg 2.5 and gdcm 3.2.6 drop them.
    frame = with_rows(LOSSLESS[JPEGLSLossless](stored, 8 * stored.itemsize), rows)
    refused = fault(compressed([frame], stored[:rows], JPEGLSLossless))
    assert refused.args == ("surplus-data", "a compressed frame goes on behind its last pixel")


@pytest.mark.parametrize("padding", [bytes(2), bytes(40)])
def test_zeros_at_the_end_of_a_scan_are_padding(padding: bytes) -> None:
    frame = LOSSLESS[JPEGLSLossless](DEEP, 16)
    (read,) = stored_frames(compressed([frame[:-2] + padding + frame[-2:]], DEEP, JPEGLSLossless))
    np.testing.assert_array_equal(read, DEEP)


TALL = np.zeros((128, 96), np.uint8)
TALL[100:110, 20:30] = 200


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("rows", [64, 100, 105])
def test_rows_of_rle_that_the_header_does_not_count_are_refused(rows: int, kind: Any) -> None:
    # They compress so well that the frame is no longer than one of fewer rows can be; pydicom 3.0.2 drops them.
    stored = TALL.astype(kind)
    refused = fault(
        compressed([LOSSLESS[RLELossless](stored, 8 * stored.itemsize)], stored[:rows], RLELossless)
    )
    assert refused.args == ("surplus-data", f"a segment of an RLE frame has more than {rows * 96} bytes")


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_rows_of_coloured_rle_that_the_header_does_not_count_are_refused(photometric: str) -> None:
    stored = np.repeat(TALL[..., None], 3, axis=2)
    data = compressed(
        [LOSSLESS[RLELossless](stored, 8)], stored[:64], RLELossless, PhotometricInterpretation=photometric
    )
    assert fault(data).reason == "surplus-data"


@pytest.mark.parametrize("padding", [b"\0", bytes(2), b"\x80\x80"])
def test_padding_of_a_segment_of_rle_is_no_row(padding: bytes) -> None:
    # PS3.5 G.4 pads with a zero to an even length; 0x80 is a code of nothing (G.3.1).
    data = compressed([LOSSLESS[RLELossless](TALL, 8) + padding], TALL, RLELossless)
    np.testing.assert_array_equal(list(stored_frames(data)), [TALL])


@pytest.mark.parametrize("run", [b"\x81\0", b"\xff\0", b"\xfe\x07", bytes([1, 0, 0])])
def test_more_than_a_byte_behind_a_plane_of_rle_is_refused(run: bytes) -> None:
    # pydicom 3.0.2, pylibjpeg-rle 2.2, gdcm 3.2.6 and dcmtk 3.6.7 write planes of exactly the header's size, of any
    # size and content that was tried, and so do the files of pydicom's package.
    data = compressed([LOSSLESS[RLELossless](TALL, 8) + run], TALL, RLELossless)
    assert fault(data).reason == "surplus-data"


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_empty_fragment_is_no_frame(at: int) -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in SEVERAL]
    pieces = [item(one + bytes(len(one) % 2), defined=True) for one in (*frames[:at], b"", *frames[at:])]
    value = b"".join([item(b"", defined=True), *pieces])
    np.testing.assert_array_equal(
        list(stored_frames(compressed([], SEVERAL, JPEGLSLossless, value))), SEVERAL
    )


def test_an_empty_fragment_in_the_place_of_a_frame_is_truncation() -> None:
    frames = [LOSSLESS[JPEGLSLossless](one, 16) for one in TWO]
    pieces = [item(one + bytes(len(one) % 2), defined=True) for one in (b"", *frames, b"")]
    assert fault(compressed([], SEVERAL, JPEGLSLossless, b"".join(pieces))).reason == "truncated"


CODERS: dict[str, Callable[[NDArray[Any]], bytes]] = {
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLosslessSV1: imagecodecs.ljpeg_encode,
    JPEG2000Lossless: lambda x: imagecodecs.jpeg2k_encode(x, codecformat="j2k", reversible=True),
}


@pytest.mark.parametrize("syntax", CODERS)
def test_a_codestream_of_more_bits_than_are_allocated_is_refused(syntax: str) -> None:
    # With 8 of its 16 bits, a picture of noise came out.
    refused = fault(compressed([CODERS[syntax](DEEP)], GREY, syntax))
    assert refused.args == ("undecodable", "the codestream has 16 bits a sample, BitsAllocated is 8")


def test_a_video_is_refused_by_its_name_and_not_for_its_fragments() -> None:
    refused = fault(compressed([b"\0\0\1\xb3" * 4], GREY[None], MPEG2MPML, NumberOfFrames=300))
    assert refused.args == ("undecodable", "no decoder exists for MPEG2 Main Profile / Main Level")


def enhanced(groups: int) -> bytes:
    """Return an enhanced object of three frames with so many items of functional groups."""
    one = dataset(SEVERAL, SOPClassUID=EnhancedCTImageStorage)
    items = []
    for number in range(groups):
        rescale, group = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = number + 1, 0
        group.PixelValueTransformationSequence = [rescale]
        items.append(group)
    one.PerFrameFunctionalGroupsSequence = items
    return file_bytes(one, ExplicitVRLittleEndian)


def test_groups_for_more_frames_than_there_are_are_a_finding() -> None:
    # PS3.3 C.7.6.16: as many items as frames. pydicom's liver_1frame.dcm has three for one.
    assert [
        (findings(enhanced(count)), [one.slope for one in images(enhanced(count))]) for count in (3, 5)
    ] == [
        (set(), [1, 2, 3]),
        ({"surplus-groups"}, [1, 2, 3]),
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_groups_for_fewer_frames_are_truncation(count: int) -> None:
    assert fault(enhanced(count)).reason == "truncated"
