"""Modality units of stored pixels, and the windows of a file."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from imaging.image.image import Image, rescale
from imaging.image.window import Sigmoid, Unusable, Window

STORED = np.array([[-1024, 0, 40], [100, 1000, 2047]])


def image(stored: NDArray[Any] = STORED, kind: Any = np.int16, **changes: Any) -> Dataset:
    """Return a data set of stored values; None leaves an attribute out."""
    pixels: NDArray[Any] = stored.astype(kind)
    attributes = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.2",
        "StudyInstanceUID": "1.2.1",
        "PatientID": "P",
        "Modality": "CT",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    dataset = Dataset()
    for keyword, value in (attributes | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def read(dataset: Dataset) -> Image:
    """Return the image of a file that holds this data set."""
    (instance,) = read_dicom(written(dataset), "CT")
    return instance.image


def fault(dataset: Dataset) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read(dataset)
    return caught.value


def compressed(syntax: str) -> Dataset:
    dataset = image(np.arange(4096).reshape(64, 64))
    dataset.compress(syntax)
    return dataset


def test_values_without_rescale_are_the_stored_ones() -> None:
    np.testing.assert_array_equal(read(image()).values, STORED)


def test_values_are_single_precision() -> None:
    assert read(image()).values.dtype == np.float32


def test_values_are_rescaled() -> None:
    values = read(image(RescaleSlope=0.5, RescaleIntercept=-1000)).values
    np.testing.assert_array_equal(values, STORED * 0.5 - 1000)


def test_a_slope_needs_no_intercept() -> None:
    np.testing.assert_array_equal(read(image(RescaleSlope=2)).values, STORED * 2)


def test_an_empty_slope_is_one() -> None:
    values = read(image(RescaleSlope="", RescaleIntercept=-5)).values
    np.testing.assert_array_equal(values, STORED - 5)


@given(st.integers(-(2**15), 2**15 - 1), st.floats(-100, 100), st.floats(-1e5, 1e5))
def test_rescale_is_a_line(stored: int, slope: float, intercept: float) -> None:
    expected = stored * slope + intercept
    assert rescale(np.array([stored]), slope, intercept)[0] == pytest.approx(expected, rel=1e-5, abs=1e-2)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_all_widths_are_read_with_their_sign(kind: Any) -> None:
    limits = np.iinfo(kind)
    stored: NDArray[Any] = np.array([[limits.min, 0], [1, min(limits.max, 2**24)]], dtype=kind)
    np.testing.assert_array_equal(read(image(stored, kind)).values, stored)


def test_the_sign_of_12_bits_in_16_is_extended() -> None:
    stored = np.array([[0x0FFF, 0x0800, 0x07FF]])
    dataset = image(stored, np.uint16, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_array_equal(read(dataset).values, [[-1, -2048, 2047]])


def test_unused_bits_are_no_part_of_a_value() -> None:
    dataset = image(np.array([[0xF001, 0x1002]]), np.uint16, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(dataset).values, [[1, 2]])


def test_a_modality_table_is_applied() -> None:
    table = Dataset()
    table.LUTDescriptor = [3, 0, 16]
    table.add_new("LUTData", "US", [10, 20, 70])
    table.ModalityLUTType = "US"
    dataset = image(np.array([[0, 1, 2]]), np.uint16, ModalityLUTSequence=Sequence([table]))
    np.testing.assert_array_equal(read(dataset).values, [[10, 20, 70]])


@pytest.mark.parametrize(("photometric", "inverted"), [("MONOCHROME1", True), ("MONOCHROME2", False)])
def test_only_monochrome1_is_inverted(photometric: str, inverted: bool) -> None:
    assert read(image(PhotometricInterpretation=photometric)).inverted is inverted


def test_inversion_is_left_to_the_preprocessing() -> None:
    np.testing.assert_array_equal(read(image(PhotometricInterpretation="MONOCHROME1")).values, STORED)


def test_the_window_comes_with_the_pixels() -> None:
    assert read(image(WindowCenter=40, WindowWidth=400)).vois == (Window(center=40, width=400),)


def test_several_windows_come_in_their_order() -> None:
    dataset = image(WindowCenter=[40, -600], WindowWidth=[400, 1500])
    assert read(dataset).vois == (Window(center=40, width=400), Window(center=-600, width=1500))


def test_no_window_is_none() -> None:
    assert read(image()).vois == ()


def test_a_sigmoid_is_none_of_the_lines() -> None:
    dataset = image(WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert read(dataset).vois == (Sigmoid(40.0, 400.0),)


@pytest.mark.parametrize(
    ("function", "width"),
    [("LINEAR", 0.5), ("LINEAR", 0), ("LINEAR_EXACT", 0), ("SIGMOID", 0), ("CUBIC", 400), ("LINEAR", "")],
)
def test_a_window_that_shows_nothing_cannot_be_used(function: str, width: Any) -> None:
    (voi,) = read(image(WindowCenter=40, WindowWidth=width, VOILUTFunction=function)).vois
    assert isinstance(voi, Unusable)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_window_shows_what_the_standard_shows(function: str) -> None:
    stored = np.arange(-200, 300).reshape(10, 50)
    dataset = image(stored, WindowCenter=40, WindowWidth=150, VOILUTFunction=function)
    result = read(dataset)
    # pydicom maps to the range of 16 stored bits.
    judged = (apply_voi_lut(stored.astype(np.int16), dataset) + 2**15) / (2**16 - 1)
    np.testing.assert_allclose(result.vois[0].show(result.values), judged, atol=1e-6)


def test_too_few_bytes_are_truncation_with_both_counts() -> None:
    dataset = image(PixelData=bytes(10))
    assert fault(dataset).args == ("truncated", "PixelData has 10 bytes, 12 are needed")


def test_a_padding_byte_is_no_harm() -> None:
    stored = np.array([[1, 2, 3]])
    dataset = image(stored, np.uint8, PixelData=bytes([1, 2, 3, 0]))
    np.testing.assert_array_equal(read(dataset).values, stored)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_an_image_larger_than_the_limit_is_not_decoded(syntax: str) -> None:
    dataset = compressed(syntax)
    dataset.Rows, dataset.Columns = 65535, 65535
    assert fault(dataset).args == (
        "too-large",
        f"the decoded size of a frame in bytes is {2 * 65535**2}, the limit is {LIMITS.frame_bytes}",
    )


def test_encapsulated_pixels_without_a_fragment_are_truncated() -> None:
    dataset = compressed(RLELossless)
    dataset.PixelData = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    assert fault(dataset).args == ("truncated", "PixelData has 0 fragments, 1 are needed")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_broken_codestream_is_undecodable(syntax: str) -> None:
    dataset = compressed(syntax)
    dataset.PixelData = encapsulate([b"\xa5" * 600])
    assert fault(dataset).reason == "undecodable"


@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PixelRepresentation"]
)
def test_what_decoding_needs_must_be_there(keyword: str) -> None:
    without: dict[str, Any] = {keyword: None}
    assert fault(image(**without)).reason == "undecodable"


@pytest.mark.parametrize("value", ["nan", "inf", "wide"])
def test_a_slope_that_is_no_number_is_undecodable(value: str) -> None:
    dataset = image()
    dataset.add_new("RescaleSlope", "LO", value)
    assert fault(dataset).args == ("undecodable", "RescaleSlope is not a finite number")


def test_values_beyond_single_precision_are_undecodable() -> None:
    assert fault(image(RescaleSlope="1e300")).reason == "undecodable"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_codestream_of_another_size_is_undecodable_with_both_sizes(syntax: str) -> None:
    dataset = compressed(syntax)
    dataset.Columns = 32
    assert fault(dataset).args == (
        "undecodable",
        "the codestream has 64 x 64 pixels of 1 samples, the header says 64 x 32 of 1",
    )


def test_equal_files_give_equal_pixels() -> None:
    data = written(image(WindowCenter=1, WindowWidth=9))
    first, second = (next(read_dicom(data, "CT")).image for _ in range(2))
    assert first.values.tobytes() == second.values.tobytes()
