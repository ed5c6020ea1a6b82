"""Codecs of compressed frames: each gives back the encoded values, and a missing decoder is no fault of the file."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, dcmwrite, examples
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging.dicom.codecs import find_decoder
from imaging.errors import DataFault, EnvironmentFault
from imaging.image.instance import Instance
from imaging.sources.folder_source import FolderSource
from tests.synthetic import read_file, write_dicom

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")

MPEG2 = "1.2.840.10008.1.2.4.100"
INTERCEPT = -1024


def slice_of(low: int, high: int) -> NDArray[np.int16]:
    """Return a smooth image with noise: real enough to exercise a codec."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :40] / 40
    drawn = (low + high) / 2 + (high - low) / 2.2 * np.sin(4 * x + 7 * y) + rng.normal(0, 9, x.shape)
    stored: NDArray[np.int16] = np.clip(drawn, low, high).astype(np.int16)
    return stored


def differences(stored: NDArray[np.int16], start: int) -> list[int]:
    """Return each pixel less its prediction, modulo 2**16: the left one, in the first column the upper one."""
    wide = stored.astype(int)
    predicted = np.roll(wide, 1, axis=1)
    predicted[1:, 0] = wide[:-1, 0]
    predicted[0, 0] = start
    return [int(d) for d in ((wide - predicted + 0x8000) % 0x10000 - 0x8000).ravel()]


def jpeg_lossless(stored: NDArray[np.int16], bits: int = 12) -> bytes:
    """Encode by ITU-T T.81, process 14, first-order prediction; every category has a code of five bits."""
    rows, columns = stored.shape
    code = ""
    for difference in differences(stored, 1 << (bits - 1)):
        category = abs(difference).bit_length()
        code += f"{category:05b}"
        if category:
            code += f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
    code += "1" * (-len(code) % 8)
    scan = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + bytes([1, 1, 0x11, 0])
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    segments = ((0xC3, frame), (0xC4, table), (0xDA, bytes([1, 1, 0, 1, 0, 0])))
    marked = (bytes([0xFF, m]) + (len(body) + 2).to_bytes(2, "big") + body for m, body in segments)
    return b"\xff\xd8" + b"".join(marked) + scan + b"\xff\xd9"


def stored_as(syntax: UID) -> Callable[[Dataset], None]:
    """Return a change of the transfer syntax that leaves the pixels plain."""

    def change(dataset: Dataset) -> None:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


def compressed_as(syntax: UID) -> Callable[[Dataset], None]:
    """Return a compression by pydicom's own encoders."""
    return lambda dataset: dataset.compress(syntax)


def jpeg_lossless_as(syntax: UID) -> Callable[[Dataset], None]:
    """Return a compression by the encoder above."""

    def change(dataset: Dataset) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
        dataset.PixelData = encapsulate([jpeg_lossless(stored)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


EXACT = {
    ImplicitVRLittleEndian: stored_as,
    ExplicitVRLittleEndian: stored_as,
    ExplicitVRBigEndian: stored_as,
    DeflatedExplicitVRLittleEndian: stored_as,
    RLELossless: compressed_as,
    JPEGLSLossless: compressed_as,
    JPEG2000Lossless: compressed_as,
    JPEGLossless: jpeg_lossless_as,
    JPEGLosslessSV1: jpeg_lossless_as,
}
"""Transfer syntaxes that give back every value, and how a file of each is made."""


def read(folder: Path, modality: str = "CT") -> Instance:
    source = FolderSource(folder)
    (file,) = source.scan()
    (instance,) = read_file(source, file, modality)
    return instance


def written(folder: Path, stored: NDArray[np.int16], change: Callable[[Dataset], None], signed: bool) -> Path:
    """Write a slice of 12 stored bits, changed, into a folder of its own."""
    path = write_dicom(
        folder / "slice",
        stored,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=int(signed),
        RescaleSlope=1,
        RescaleIntercept=INTERCEPT,
    )
    dataset = dcmread(path)
    change(dataset)
    # The method of the data set would refuse to change the byte order.
    dcmwrite(path, dataset, enforce_file_format=True)
    return folder


@pytest.mark.parametrize("syntax", EXACT, ids=lambda syntax: syntax.name[:40])
def test_unsigned_values_come_back_exactly(syntax: UID, tmp_path: Path) -> None:
    stored = slice_of(0, 4095)
    folder = written(tmp_path, stored, EXACT[syntax](syntax), signed=False)
    np.testing.assert_array_equal(read(folder).image.values, stored + INTERCEPT)


# JPEG knows no sign, so that no file of it is signed.
SIGNED = [syntax for syntax, made in EXACT.items() if made is not jpeg_lossless_as]


@pytest.mark.parametrize("syntax", SIGNED, ids=lambda syntax: syntax.name[:40])
def test_signed_values_come_back_exactly(syntax: UID, tmp_path: Path) -> None:
    stored = slice_of(-2048, 2047)
    folder = written(tmp_path, stored, EXACT[syntax](syntax), signed=True)
    np.testing.assert_array_equal(read(folder).image.values, stored + INTERCEPT)


def test_near_lossless_values_come_back_within_the_error_that_was_allowed(tmp_path: Path) -> None:
    stored = slice_of(0, 4095)
    folder = written(
        tmp_path, stored, lambda dataset: dataset.compress(JPEGLSNearLossless, jls_error=3), signed=False
    )
    assert np.abs(read(folder).image.values - (stored + INTERCEPT)).max() <= 3


def test_baseline_jpeg_is_decoded_as_elsewhere(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.fromarray((slice_of(0, 4095) // 16).astype(np.uint8)).save(buffer, "jpeg", quality=95)
    path = write_dicom(tmp_path / "slice", np.zeros((48, 40)), PixelRepresentation=0)
    dataset = dcmread(path)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(path)
    # Two decoders may differ by a rounding of the cosine transform.
    np.testing.assert_allclose(read(tmp_path).image.values, np.asarray(Image.open(buffer)), atol=1)


def test_an_image_in_two_fragments_is_one(tmp_path: Path) -> None:
    stored = slice_of(0, 4095)

    def change(dataset: Dataset) -> None:
        dataset.PixelData = encapsulate([jpeg_lossless(stored)], fragments_per_frame=2)
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1

    folder = written(tmp_path, stored, change, signed=False)
    np.testing.assert_array_equal(read(folder).image.values, stored + INTERCEPT)


@pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"])
def test_files_of_other_writers_give_the_same_values(name: str, tmp_path: Path) -> None:
    path = get_testdata_file(f"{name}.dcm", download=False)
    assert isinstance(path, str)
    (tmp_path / "slice").write_bytes(Path(path).read_bytes())
    np.testing.assert_array_equal(read(tmp_path, "MR").image.values, examples.mr.pixel_array)


@pytest.mark.parametrize(
    "syntax",
    [*EXACT, JPEGLSNearLossless, JPEGBaseline8Bit, JPEGExtended12Bit, HTJ2KLossless],
    ids=lambda syntax: syntax.name[:40],
)
def test_a_decoder_comes_with_the_installation(syntax: UID) -> None:
    assert find_decoder(syntax).is_available


@pytest.mark.parametrize(
    ("syntax", "detail"),
    [
        (MPEG2, "no decoder exists for MPEG2 Main Profile / Main Level"),
        # Names of PS3.6 table A-1.
        (
            "1.2.840.10008.1.2.4.53",
            "no decoder exists for JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)",
        ),
        (
            "1.2.840.10008.1.2.4.55",
            "no decoder exists for JPEG Full Progression, Non-Hierarchical (Process 10 and 12)",
        ),
        ("1.2.840.10008.1.2.4.110", "no decoder exists for JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.112", "no decoder exists for JPEG XL"),
        ("1.2.840.10008.1.2.8.1", "no decoder exists for Deflated Image Frame Compression"),
        (
            "1.2.840.10008.1.2.1.98",
            "no decoder exists for Encapsulated Uncompressed Explicit VR Little Endian",
        ),
        ("1.2.3.4", "no decoder exists for an unknown transfer syntax"),
        ("DOE^JANE", "no decoder exists for an unknown transfer syntax"),
    ],
)
def test_what_nobody_decodes_is_a_fault_of_the_file(syntax: str, detail: str) -> None:
    with pytest.raises(DataFault) as caught:
        find_decoder(UID(syntax))
    assert caught.value.args == ("undecodable", detail)


@pytest.fixture
def no_jpegls(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", {"pyjpegls": ("numpy", "pyjpegls>=1.2")})


def test_a_missing_decoder_is_a_fault_of_the_environment(no_jpegls: None, tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "slice",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PhotometricInterpretation="RGB",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=bytes(64 * 64 * 3),
    )
    dataset = dcmread(path)
    dataset.compress(JPEGLSLossless)
    dataset.save_as(path)
    with pytest.raises(EnvironmentFault):
        read(tmp_path)


def test_a_grey_frame_needs_no_plugin_of_pydicoms(no_jpegls: None, tmp_path: Path) -> None:
    stored = slice_of(0, 4095)
    folder = written(tmp_path, stored, compressed_as(JPEGLSLossless), signed=False)
    np.testing.assert_array_equal(read(folder).image.values, stored + INTERCEPT)


def test_a_missing_decoder_is_named_with_its_remedy(no_jpegls: None) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"JPEG-LS Lossless .*1\.2\.840\.10008\.1\.2\.4\.80.*pyjpegls>=1\.2"
    ):
        find_decoder(JPEGLSLossless)
