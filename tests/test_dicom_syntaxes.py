"""Transfer syntaxes: each gives back the encoded values, and a missing decoder is named."""

from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.dicom.codecs import FAST, check_decoders
from imaging.errors import EnvironmentFault
from tests.codestreams import DEEP, GREY, LOSSLESS, unsigned
from tests.dicom_objects import NATIVE, compressed, dataset, fault, file_bytes, made, ramp, stored_frames


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_syntax_gives_back_what_was_encoded(syntax: str, bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
    stored = (ramp((40, 30), np.int64, step=53) % 2**bits + low).astype(kind)
    data = compressed([LOSSLESS[syntax](stored, bits)], stored, syntax, BitsStored=bits, HighBit=bits - 1)
    (decoded,) = stored_frames(data)
    assert decoded.dtype == stored.dtype
    np.testing.assert_array_equal(decoded, stored)


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
    (decoded,) = stored_frames(data)
    np.testing.assert_array_equal(decoded, stored)


def plain_jpeg(stored: NDArray[Any], bits: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(stored, level=95, bitspersample=bits))


@pytest.mark.parametrize(
    ("syntax", "bits", "plugin"), [(JPEGBaseline8Bit, 8, "pylibjpeg"), (JPEGExtended12Bit, 12, "pylibjpeg")]
)
def test_lossy_jpeg_is_what_pydicom_decodes(syntax: str, bits: int, plugin: str) -> None:
    stored = (GREY if bits == 8 else DEEP % 4096).astype(np.uint8 if bits == 8 else np.uint16)
    data = compressed([plain_jpeg(stored, bits)], stored, syntax, BitsStored=bits)
    expected, _ = get_decoder(syntax).as_array(dcmread(BytesIO(data)), decoding_plugin=plugin)
    (decoded,) = stored_frames(data)
    np.testing.assert_allclose(decoded.astype(int), expected.astype(int), 0, 1 if bits == 8 else 2)


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
    with pytest.raises(
        EnvironmentFault, match=r"(?s)imagecodecs is installed without its codec jpegls.*install"
    ):
        check_decoders()


def test_a_missing_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_decoder(JPEG2000)), "is_available", property(lambda _: False))
    with pytest.raises(EnvironmentFault, match=r"JPEG 2000.*install"):
        check_decoders()


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_a_codestream_that_does_not_reach_high_bit_has_the_value_at_its_end(syntax: str) -> None:
    stored = DEEP % 4096
    data = compressed([LOSSLESS[syntax](stored, 12)], stored, syntax, BitsStored=12, HighBit=15)
    (decoded,) = stored_frames(data)
    np.testing.assert_array_equal(decoded, stored)


def test_an_unsigned_codestream_of_signed_pixels_keeps_their_sign() -> None:
    stored = (DEEP % 4096).astype(np.int16) - np.int16(2048)
    frame = imagecodecs.jpeg2k_encode(
        unsigned(stored, 12), codecformat="j2k", reversible=True, bitspersample=12
    )
    data = compressed([frame], stored, JPEG2000Lossless, BitsStored=12)
    (decoded,) = stored_frames(data)
    np.testing.assert_array_equal(decoded, stored)


def test_the_mismatched_file_of_pydicom_is_read_as_it_is_meant() -> None:
    path = Path(str(get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)))
    (decoded,) = stored_frames(path.read_bytes())
    np.testing.assert_array_equal(decoded, dcmread(path).pixel_array)
    assert decoded.min() == -2000


@pytest.mark.parametrize("end", range(13, 700, 13))
def test_a_codestream_that_is_cut_is_never_an_image(end: int) -> None:
    for syntax in (JPEGLSLossless, JPEGLosslessSV1, HTJ2KLossless, RLELossless):
        frame = LOSSLESS[syntax](DEEP, 16)
        data = compressed([frame[: min(end, len(frame) // 2)]], DEEP, syntax)
        assert fault(data).reason in {"undecodable", "truncated"}, syntax


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
@pytest.mark.parametrize("bits", [10, 12, 15])
def test_an_overlay_in_a_codestream_of_all_bits_is_cut_off(bits: int, syntax: str, kind: Any) -> None:
    # PS3.5 8.1.1: of bits that are not stored nothing may be assumed. Native, JPEG-LS and RLE are read so.
    low = -(2 ** (bits - 1)) if kind is np.int16 else 0
    stored = (DEEP.astype(np.int64) % 2**bits + low).astype(kind)
    noisy = stored.view(np.uint16) ^ (DEEP & np.uint16(0xFFFF << bits & 0xFFFF))
    (decoded,) = stored_frames(
        compressed([LOSSLESS[syntax](noisy.view(kind), 16)], stored, syntax, BitsStored=bits)
    )
    np.testing.assert_array_equal(decoded, stored)


def test_a_codestream_of_more_bits_than_stored_and_fewer_than_allocated_keeps_them() -> None:
    # An overlay would lie in bits that it does not have: the header's BitsStored is the one that is wrong.
    stored = DEEP % 2**14
    frame = LOSSLESS[JPEG2000Lossless](stored, 14)
    (decoded,) = stored_frames(compressed([frame], stored, JPEG2000Lossless, BitsStored=12))
    np.testing.assert_array_equal(decoded, stored)
