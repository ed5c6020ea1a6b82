"""What is taken out of pixel data though no image shows it."""

import struct
from io import BytesIO
from typing import Any, Literal

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.deidentify.objects.codestream_text import without_text
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from tests.codestreams import DEEP, LOSSLESS, SEVERAL
from tests.dicom_objects import compressed, dataset, file_bytes, insert, ramp
from tests.scrubbed_objects import KEY, clean, fault

SECRET = b"Doe^Johanna 4711"
SYNTAXES = [ExplicitVRLittleEndian, ExplicitVRBigEndian]


def pixels_of(stored: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **changes: Any) -> NDArray[Any]:
    """Return the words that come out of native pixel data."""
    order: Literal[">", "<"] = ">" if syntax == ExplicitVRBigEndian else "<"
    written = dataset(stored, PixelData=stored.astype(stored.dtype.newbyteorder(order)).tobytes(), **changes)
    after = pydicom.dcmread(BytesIO(clean(file_bytes(written, syntax))))
    return np.frombuffer(after.PixelData, stored.dtype.newbyteorder(order)).reshape(stored.shape)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: UID(uid).name)
def test_an_overlay_in_high_bits_goes(syntax: str) -> None:
    stored = ramp((8, 8), np.uint16)
    scrubbed = pixels_of(stored | 0x8000, syntax, BitsStored=12)
    assert np.array_equal(scrubbed, stored)


def test_an_overlay_in_low_bits_goes() -> None:
    stored = ramp((8, 8), np.uint16) << 4
    assert np.array_equal(pixels_of(stored | 1, BitsStored=12, HighBit=15), stored)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: UID(uid).name)
def test_signs_stay_where_an_overlay_goes(syntax: str) -> None:
    stored = ramp((8, 8), np.int16) - 32
    hidden = stored.copy()
    hidden[0] ^= 0x4000
    assert np.array_equal(pixels_of(hidden, syntax, BitsStored=12), stored)


@pytest.mark.parametrize("stored", [ramp((8, 8), np.int16) - 32, (ramp((8, 8), np.int16) - 32) & 0xFFF])
def test_either_way_to_write_a_sign_stays(stored: NDArray[np.int16]) -> None:
    assert np.array_equal(pixels_of(stored, BitsStored=12), stored)


PADDED = {
    "one value": ({"PixelPaddingValue": 0x8000}, [0x8000, 0x8000, 0x8123, 100], [0x8000, 0x8000, 0x123, 100]),
    "a range": (
        {"PixelPaddingValue": 0xFFFF, "PixelPaddingRangeLimit": 0x8000},
        [0xFFFF, 0x8123, 0x7123, 100],
        [0x8000, 0x8000, 0x123, 100],
    ),
    "a value that fits": ({"PixelPaddingValue": 0}, [0, 0x8000, 0x123, 100], [0, 0, 0x123, 100]),
}
"""Padding, stored words, and what comes out of them where BitsStored is 12 (PS3.3 C.7.5.1.1.2)."""


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: UID(uid).name)
@pytest.mark.parametrize("name", PADDED)
def test_padding_beyond_the_stored_bits_is_padding_still(name: str, syntax: str) -> None:
    padding, before, after = PADDED[name]
    after_scrub = pixels_of(np.array([before], np.uint16), syntax, BitsStored=12, **padding)
    assert after_scrub.tolist() == [after]


def test_negative_padding_beyond_the_stored_bits_is_padding_still() -> None:
    # CT scanners write -2000 or -32768 around 12 bits.
    stored = np.array([[-32768, -1024, 100, 0x4064]], np.int16)
    after_scrub = pixels_of(stored, BitsStored=12, PixelPaddingValue=-32768)
    assert after_scrub.tolist() == [[-32768, -1024, 100, 0x64]]


def test_an_overlay_in_bytes_goes() -> None:
    stored = ramp((8, 8), np.uint8)
    assert np.array_equal(pixels_of(stored | 0x80, BitsStored=7), stored & 0x7F)


def test_pixels_without_an_overlay_are_not_copied() -> None:
    before = parse(file_bytes(dataset(ramp((8, 8), np.uint16), BitsStored=12)))
    value = before.get_item("PixelData").value
    assert scrub(before, DeidentifyOptions(), KEY).get_item("PixelData").value is value


def test_what_lies_behind_the_last_frame_goes() -> None:
    stored = ramp((8, 8), np.uint16)
    assert SECRET not in clean(file_bytes(dataset(stored, PixelData=stored.tobytes() + SECRET)))


@pytest.mark.parametrize("syntax", list(LOSSLESS), ids=lambda uid: UID(uid).name)
def test_compressed_pixels_stay(syntax: str) -> None:
    frames = [LOSSLESS[syntax](one, 16) for one in SEVERAL]
    after = pydicom.dcmread(BytesIO(clean(compressed(frames, SEVERAL, syntax))))
    assert np.array_equal(after.pixel_array, SEVERAL)


def _jpeg_comment(frame: bytes) -> bytes:
    return frame[:2] + b"\xff\xfe" + struct.pack(">H", len(SECRET) + 2) + SECRET + frame[2:]


def _jpeg_application(frame: bytes) -> bytes:
    return frame[:2] + b"\xff\xe1" + struct.pack(">H", len(SECRET) + 2) + SECRET + frame[2:]


def _jpeg2000_comment(frame: bytes) -> bytes:
    after_size = 4 + struct.unpack_from(">H", frame, 4)[0]
    comment = b"\xff\x64" + struct.pack(">HH", len(SECRET) + 4, 1) + SECRET
    return frame[:after_size] + comment + frame[after_size:]


EMBEDDERS = [
    (syntax, embed)
    for syntax in LOSSLESS
    for embed in (_jpeg_comment, _jpeg_application, _jpeg2000_comment)
    if (embed is _jpeg2000_comment) == (LOSSLESS[syntax](DEEP, 16)[:4] == b"\xff\x4f\xff\x51")
    and LOSSLESS[syntax](DEEP, 16)[:1] == b"\xff"
]


@pytest.mark.parametrize(
    ("syntax", "embed"), EMBEDDERS, ids=lambda one: UID(one).name if isinstance(one, str) else one.__name__
)
def test_text_in_a_codestream_goes_and_its_pixels_stay(syntax: str, embed: Any) -> None:
    data = compressed([embed(LOSSLESS[syntax](DEEP, 16))], DEEP, syntax)
    assert SECRET in data
    after = clean(data)
    assert SECRET not in after
    assert np.array_equal(pydicom.dcmread(BytesIO(after)).pixel_array, DEEP)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


BASELINE = imagecodecs.jpeg8_encode(DEEP.astype(np.uint8))
UNNEEDED = {
    "DNL": (JPEGBaseline8Bit, 0xDC, b""),
    "JPG0": (JPEGBaseline8Bit, 0xF0, b""),
    "JPG13": (JPEGBaseline8Bit, 0xFD, b""),
    "Adobe and more": (JPEGBaseline8Bit, 0xEE, b"Adobe" + bytes(7)),
    "mrfx and more": (JPEGLSLossless, 0xE8, b"mrfx\0"),
    "LSE of an unknown kind": (JPEGLSLossless, 0xF8, b"\5"),
    "reserved of JPEG-LS": (JPEGLSLossless, 0xF9, b""),
}
"""Segments that carry a length and nothing for a decoder (T.81, table B.1; T.87, C.2.4.1)."""


@pytest.mark.parametrize("name", UNNEEDED)
@pytest.mark.parametrize("at", [2, -2])
def test_segments_that_no_decoder_needs_go(name: str, at: int) -> None:
    syntax, marker, begins = UNNEEDED[name]
    if syntax == JPEGLSLossless:
        at = 2  # its decoder wants the end right behind the scan
    frame = BASELINE if syntax == JPEGBaseline8Bit else LOSSLESS[syntax](DEEP, 16)
    after = without_text(frame[:at] + _segment(marker, begins + SECRET) + frame[at:])
    decode = imagecodecs.jpeg8_decode if syntax == JPEGBaseline8Bit else imagecodecs.jpegls_decode
    assert SECRET not in after
    assert np.array_equal(decode(after), decode(frame))


def _codes(kind: int) -> bytes:
    """Return a table of codes whose values are the secret (T.81, B.2.4.2)."""
    return _segment(0xC4, bytes([kind]) + bytes(15) + bytes([len(SECRET)]) + SECRET)


QUANTIZERS = (SECRET * 4)[:64]
UNUSED = {
    "quantizers of another number": (JPEGBaseline8Bit, _segment(0xDB, b"\3" + QUANTIZERS), None),
    "wide quantizers": (JPEGBaseline8Bit, _segment(0xDB, b"\x12" + 2 * QUANTIZERS), None),
    "two tables of codes": (JPEGBaseline8Bit, _codes(0x02) + _codes(0x13), None),
    "a table that is replaced": (JPEGBaseline8Bit, b"", _segment(0xDB, b"\0" + QUANTIZERS)),
    "codes that lossless JPEG has not": (JPEGLosslessSV1, _codes(0x10), None),
    "quantizers that lossless JPEG has not": (JPEGLosslessSV1, _segment(0xDB, b"\0" + QUANTIZERS), None),
}


@pytest.mark.parametrize("name", UNUSED)
def test_tables_that_no_scan_uses_go(name: str) -> None:
    syntax, before_scan, at_start = UNUSED[name]
    frame = BASELINE if syntax == JPEGBaseline8Bit else LOSSLESS[syntax](DEEP, 16)
    at = frame.index(b"\xff\xda")
    after = without_text(frame[:2] + (at_start or b"") + frame[2:at] + before_scan + frame[at:])
    assert SECRET not in after and len(after) == len(frame) + len(before_scan + (at_start or b""))
    assert np.array_equal(imagecodecs.jpeg8_decode(after), imagecodecs.jpeg8_decode(frame))


def test_a_segment_of_tables_with_other_bytes_does_not_pass() -> None:
    with pytest.raises(DataFault, match="undecodable"):
        without_text(BASELINE[:2] + _segment(0xDB, b"\3" + QUANTIZERS + SECRET) + BASELINE[2:])


def _with_lengths(frame: bytes, content: bytes) -> bytes:
    """Return JPEG 2000 with the lengths of its tile-parts (T.800, A.7.1)."""
    at = frame.index(b"\xff\x90")
    return frame[:at] + _segment(0x55, content) + frame[at:]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
def test_lengths_of_tile_parts_stay_only_where_they_are_true(syntax: str) -> None:
    # HTJ2K Lossless RPCL must have them (PS3.5 10.18).
    frame = OVERLAYS[syntax](DEEP)
    length = struct.unpack_from(">I", frame, frame.index(b"\xff\x90") + 6)[0]
    true = [
        struct.pack(">BBI", 0, 0x40, length),
        struct.pack(">BBBI", 0, 0x50, 0, length),
        struct.pack(">BBHH", 0, 0x20, 0, length),
    ]
    for content in true:
        assert content in without_text(_with_lengths(frame, content))
    for content in (*true, struct.pack(">BB", 0, 0x40)):
        after = without_text(_with_lengths(frame, content + SECRET))
        assert SECRET not in after and b"\xff\x55" not in after[: after.index(b"\xff\x90")]


def test_bytes_between_segments_do_not_pass() -> None:
    with pytest.raises(DataFault, match="undecodable"):
        without_text(BASELINE[:2] + SECRET + BASELINE[2:])


@pytest.mark.parametrize("marker", [0x56, 0x57, 0x58, 0x63, 0x70])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
def test_segments_of_jpeg_2000_that_no_decoder_needs_go(syntax: str, marker: int) -> None:
    # PLM, PLT and CRG inform (T.800, A.7.2 to A.9), and PRF; FF70 is of no part that DICOM has.
    frame = LOSSLESS[syntax](DEEP, 16)
    at = frame.index(b"\xff\x90")
    after = without_text(frame[:at] + _segment(marker, SECRET) + frame[at:])
    decode = imagecodecs.htj2k_decode if syntax == HTJ2KLossless else imagecodecs.jpeg2k_decode
    assert SECRET not in after
    assert np.array_equal(decode(after), DEEP)


@pytest.mark.parametrize("tile", [1, 7, 0xFFFE])
def test_more_tiles_than_the_size_of_jpeg_2000_has_do_not_pass(tile: int) -> None:
    frame = OVERLAYS[JPEG2000Lossless](DEEP)
    at, end = frame.index(b"\xff\x90"), len(frame) - 2
    part = bytearray(frame[at:end])
    struct.pack_into(">HI", part, 4, tile, len(part))
    first = frame[: at + 6] + struct.pack(">I", len(part)) + frame[at + 10 : end]
    with pytest.raises(DataFault, match="surplus-data"):
        without_text(first + bytes(part) + frame[end:])


def test_what_lies_behind_a_codestream_goes() -> None:
    data = compressed([LOSSLESS[JPEGLSLossless](DEEP, 16) + SECRET], DEEP, JPEGLSLossless)
    assert SECRET not in clean(data)


def test_an_offset_table_is_written_anew() -> None:
    frame = LOSSLESS[JPEGLSLossless](DEEP, 16)
    frame += bytes(len(frame) % 2)
    value = struct.pack("<HHI", 0xFFFE, 0xE000, len(SECRET)) + SECRET
    value += struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    assert SECRET not in clean(compressed([], DEEP, JPEGLSLossless, value=value))


def test_a_frame_that_is_no_codestream_does_not_pass() -> None:
    with pytest.raises(DataFault, match="undecodable"):
        without_text(SECRET)


def test_a_codestream_that_is_cut_short_does_not_pass() -> None:
    with pytest.raises(DataFault, match="undecodable"):
        without_text(LOSSLESS[JPEGLSLossless](DEEP, 16)[:200])


def test_an_overlay_in_compressed_pixels_does_not_pass() -> None:
    hidden = (DEEP & 0xFFF) | 0x8000
    data = compressed([LOSSLESS[JPEGLSLossless](hidden, 16)], hidden, JPEGLSLossless, BitsStored=12)
    assert fault(data).reason == "burned-in-doubt"


def test_compressed_pixels_of_fewer_bits_than_the_codestream_has_may_pass() -> None:
    shallow = DEEP & 0xFFF
    data = compressed([LOSSLESS[JPEGLSLossless](shallow, 16)], shallow, JPEGLSLossless, BitsStored=12)
    assert np.array_equal(pydicom.dcmread(BytesIO(clean(data))).pixel_array, shallow)


def test_an_overlay_declared_in_compressed_pixels_does_not_pass() -> None:
    one = parse(compressed([LOSSLESS[JPEGLSLossless](DEEP, 16)], DEEP, JPEGLSLossless))
    one.add_new(0x60000102, "US", 15)
    with pytest.raises(DataFault, match="burned-in-doubt"):
        scrub(one, DeidentifyOptions(), KEY)


def test_pixels_that_contradict_the_transfer_syntax_do_not_pass() -> None:
    one = parse(file_bytes(dataset(DEEP)))
    one.file_meta.TransferSyntaxUID = JPEGLSLossless
    with pytest.raises(DataFault, match="undecodable"):
        scrub(one, DeidentifyOptions(), KEY)


OVERLAYS = {
    JPEG2000Lossless: lambda x: imagecodecs.jpeg2k_encode(x, codecformat="j2k", reversible=True),
    HTJ2KLossless: lambda x: imagecodecs.htj2k_encode(x, reversible=True),
}


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
@pytest.mark.parametrize("syntax", OVERLAYS)
def test_an_overlay_under_the_sign_of_jpeg_2000_does_not_pass(syntax: str, kind: Any) -> None:
    # Readers cut such bits off (PS3.5 8.1.1), so that the search for text does not see them.
    stored = (DEEP & 0x7FF).astype(kind)
    plain = compressed([OVERLAYS[syntax](stored)], stored, syntax, BitsStored=12)
    assert np.array_equal(pydicom.dcmread(BytesIO(clean(plain))).pixel_array, stored)
    hidden = stored | kind(0x4000)
    assert (
        fault(compressed([OVERLAYS[syntax](hidden)], hidden, syntax, BitsStored=12)).reason
        == "burned-in-doubt"
    )


@pytest.mark.parametrize("low", [-2048, -1])
def test_negative_values_of_a_wide_codestream_pass(low: int) -> None:
    stored = (DEEP & 0x7FF).astype(np.int16) + np.int16(low)
    frame = OVERLAYS[JPEG2000Lossless](stored)
    after = pydicom.dcmread(BytesIO(clean(compressed([frame], stored, JPEG2000Lossless, BitsStored=12))))
    assert np.array_equal(after.pixel_array, stored)


def test_a_codestream_behind_an_open_tile_goes() -> None:
    # A last tile-part may leave its length open (T.800 A.4.2): it ends at the first end of codestream, not the last.
    first, second = (OVERLAYS[JPEG2000Lossless](one) for one in SEVERAL[:2])
    at = first.index(b"\xff\x90")
    opened = first[: at + 6] + bytes(4) + first[at + 10 :]
    assert len(without_text(opened + second)) == len(opened)


@pytest.mark.parametrize("run", [bytes([len(SECRET) - 1]) + SECRET, b"\x81x"])
def test_bytes_behind_the_planes_of_an_rle_frame_do_not_pass(run: bytes) -> None:
    data = compressed([LOSSLESS[RLELossless](DEEP, 16) + run], DEEP, RLELossless)
    assert fault(data).reason == "surplus-data"


@pytest.mark.parametrize("run", [b"\0", bytes(2)])
def test_padding_behind_the_planes_of_an_rle_frame_stays(run: bytes) -> None:
    data = compressed([LOSSLESS[RLELossless](DEEP, 16) + run], DEEP, RLELossless)
    assert np.array_equal(pydicom.dcmread(BytesIO(clean(data))).pixel_array, DEEP)


def test_text_between_the_offsets_of_an_rle_frame_goes() -> None:
    frame = bytearray(LOSSLESS[RLELossless](DEEP, 16))
    frame[12 : 12 + len(SECRET)] = SECRET
    after = clean(compressed([bytes(frame)], DEEP, RLELossless))
    assert SECRET not in after
    assert np.array_equal(pydicom.dcmread(BytesIO(after)).pixel_array, DEEP)


def test_a_count_of_frames_that_is_removed_does_not_pass() -> None:
    # Its VR is not legal. With it three frames were searched, without it the first was written alone.
    data = file_bytes(dataset(SEVERAL)).replace(b"IS\x02\x003 ", b"US\x02\x00\x03\x00")
    assert fault(data).reason in {"burned-in-doubt", "undecodable"}


def test_lengths_of_the_fragments_as_they_were_go() -> None:
    data = compressed([LOSSLESS[JPEGLSLossless](DEEP, 16)], DEEP, JPEGLSLossless)
    total = struct.pack("<HH2sHIQ", 0x7FE0, 0x0003, b"UV", 0, 8, 4711)
    assert 0x7FE00003 not in pydicom.dcmread(BytesIO(clean(insert(data, total, 0x7FE00010))))
