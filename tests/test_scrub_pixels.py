"""What is taken out of pixel data though no image shows it."""

import struct
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLSLossless

from imaging.deidentify.objects.codestream_text import without_text
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from tests.codestreams import DEEP, LOSSLESS, SEVERAL
from tests.dicom_objects import compressed, dataset, file_bytes, ramp
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
