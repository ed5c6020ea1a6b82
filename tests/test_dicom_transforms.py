"""Transforms of stored values: they agree with the formulas of PS3.3 C.11, written out here."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from pydicom.pixels.processing import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging.errors import DataFault
from imaging.image.window import Lut, Sigmoid, Window
from tests.dicom_objects import dataset, fault, file_bytes, image, made, ramp
from tests.shown import STORED, shown, table


def linear(x: NDArray[Any], c: float, w: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1."""
    y = ((x - (c - 0.5)) / (w - 1) + 0.5) * 255
    return np.where(x <= c - 0.5 - (w - 1) / 2, 0, np.where(x > c - 0.5 + (w - 1) / 2, 255, y))


def linear_exact(x: NDArray[Any], c: float, w: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.3.2."""
    return np.where(x <= c - w / 2, 0, np.where(x > c + w / 2, 255, ((x - c) / w + 0.5) * 255))


def sigmoid(x: NDArray[Any], c: float, w: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.3.1."""
    return np.asarray(255 / (1 + np.exp(-4 * (x - c) / w)))


@pytest.mark.parametrize(
    ("function", "formula"), [("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)]
)
@pytest.mark.parametrize(("center", "width"), [(40, 400), (300.5, 1500), (0, 2), (-1000, 77)])
def test_a_window_shows_values_as_in_the_standard(
    function: str, formula: Any, center: float, width: float
) -> None:
    data = made(STORED, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    np.testing.assert_allclose(shown(data), formula(STORED.astype(float), center, width), 0, 0.51)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_shows_what_pydicom_shows(function: str) -> None:
    data = made(
        STORED,
        WindowCenter=40,
        WindowWidth=400,
        VOILUTFunction=function,
        RescaleSlope=1,
        RescaleIntercept=-24,
    )
    one = dcmread(BytesIO(data))
    expected = apply_voi_lut(apply_modality_lut(one.pixel_array, one), one)
    scaled = (expected - expected.min()) / np.ptp(expected) * 255
    if function == "SIGMOID":
        low, high = -(2**15), 2**15 - 1
        scaled = (expected - low) / (high - low) * 255
    np.testing.assert_allclose(shown(data), scaled, 0, 1)


def test_a_window_without_function_is_linear() -> None:
    with_name = made(STORED, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR")
    np.testing.assert_array_equal(shown(made(STORED, WindowCenter=40, WindowWidth=400)), shown(with_name))


def test_the_spec_chooses_among_several_windows() -> None:
    data = made(STORED, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    np.testing.assert_allclose(shown(data, 2), linear(STORED.astype(float), -600, 1500), 0, 0.51)


def test_tables_come_before_windows() -> None:
    luts = table([0, 65535], 0, 16)
    luts.extend(table([65535, 0], 0, 16))
    result = image(made(STORED, VOILUTSequence=luts, WindowCenter=40, WindowWidth=400)).vois
    assert [type(voi) for voi in result] == [Lut, Lut, Window]


def test_a_window_that_nobody_asked_for_is_a_fault() -> None:
    with pytest.raises(DataFault, match="number 3"):
        shown(made(STORED, WindowCenter=[40, -600], WindowWidth=[400, 1500]), 3)


@pytest.mark.parametrize("width", [0, -5, 1e31])
def test_a_window_that_cannot_be_is_left_out(width: float) -> None:
    assert image(made(STORED, WindowCenter=40, WindowWidth=width)).vois == ()


def test_a_sigmoid_is_kept_as_one() -> None:
    data = made(STORED, WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert image(data).vois == (Sigmoid(40.0, 400.0),)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("first", [0, 100, -1024])
def test_a_voi_table_is_looked_up(syntax: str, vr: str, bits: int, first: int) -> None:
    entries = np.linspace(0, 2**bits - 1, 512).astype(int)[::-1]
    data = made(STORED, syntax, VOILUTSequence=table(entries, first, bits, vr))
    expected = entries[np.clip(STORED.astype(int) - first, 0, 511)] / (2**bits - 1) * 255
    np.testing.assert_allclose(shown(data), expected, 0, 0.51)


def test_a_negative_first_value_may_be_written_without_its_sign() -> None:
    entries = np.arange(4096)
    unsigned = table(entries, 65536 - 1024, 12)
    data = made(STORED, VOILUTSequence=unsigned)
    np.testing.assert_allclose(shown(data), np.clip(STORED + 1024, 0, 4095) / 4095 * 255, 0, 0.51)


def test_a_first_value_is_negative_where_the_intercept_is() -> None:
    stored = (STORED + 1024).astype(np.uint16)
    luts = table(np.arange(4096), 65536 - 1024, 12)
    data = made(stored, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=luts)
    np.testing.assert_allclose(shown(data), np.clip(stored, 0, 4095) / 4095 * 255, 0, 0.51)


def test_a_large_first_value_of_unsigned_pixels_stays_large() -> None:
    stored = (np.arange(256) + 40000).astype(np.uint16).reshape(16, 16)
    data = made(stored, VOILUTSequence=table(np.arange(256) * 257, 40000, 16))
    np.testing.assert_allclose(shown(data), np.arange(256).reshape(16, 16), 0, 0.51)


@pytest.mark.parametrize("vr", ["OW", "US"])
def test_a_count_of_zero_is_65536(vr: str) -> None:
    stored = (np.arange(256) * 257).astype(np.uint16).reshape(16, 16)
    data = made(stored, VOILUTSequence=table(np.arange(65536)[::-1], 0, 16, "OW", count=0))
    np.testing.assert_allclose(shown(data), 255 - np.arange(256).reshape(16, 16), 0, 0.51)


@pytest.mark.parametrize("vr", ["OW", "US"])
def test_entries_of_one_byte_may_share_a_word(vr: str) -> None:
    packed = np.arange(256, dtype=np.uint8)[::-1].copy().view("<u2")
    stored = ramp((16, 16), np.uint8)
    data = made(stored, VOILUTSequence=table(packed, 0, 8, vr, count=256))
    np.testing.assert_array_equal(shown(data), 255 - stored)


def test_a_table_is_read_most_significant_byte_first_where_the_file_is() -> None:
    stored = ramp((16, 16), np.uint8)
    one = dataset(
        stored, VOILUTSequence=table((np.arange(256) * 257)[::-1].astype(np.uint16).byteswap(), 0, 16, "OW")
    )
    one.PixelData = stored.tobytes()
    np.testing.assert_allclose(shown(file_bytes(one, ExplicitVRBigEndian)), 255 - stored, 0, 0.51)


def test_entries_beyond_their_bits_do_not_wrap_around() -> None:
    data = made(STORED, VOILUTSequence=table(np.arange(4096), 0, 8))
    assert (np.diff(shown(data).ravel().astype(int)) >= 0).all()
    assert shown(data).max() < 256


def test_a_table_with_too_few_entries_is_a_fault() -> None:
    assert fault(made(STORED, VOILUTSequence=table([1, 2], 0, 16, count=99))).reason == "undecodable"


def test_a_damaged_table_is_a_fault() -> None:
    item = Dataset()
    item.LUTDescriptor = [1]
    assert fault(made(STORED, VOILUTSequence=Sequence([item]))).reason == "undecodable"


def test_a_modality_table_goes_before_everything() -> None:
    stored = ramp((16, 16), np.uint8)
    entries = (np.arange(256) * 10)[::-1]
    data = made(
        stored, ModalityLUTSequence=table(entries, 0, 16), RescaleSlope=7, WindowCenter=1275, WindowWidth=2551
    )
    np.testing.assert_array_equal(image(data).values, entries[stored])
    np.testing.assert_array_equal(image(data).values, apply_modality_lut(stored, dcmread(BytesIO(data))))
    np.testing.assert_allclose(shown(data), 255 - stored, 0, 0.51)


def test_a_modality_table_of_signed_pixels_begins_below_zero() -> None:
    data = made(STORED, ModalityLUTSequence=table(np.arange(4096), 65536 - 1024, 16))
    np.testing.assert_array_equal(image(data).values, STORED + 1024)


def test_tables_in_other_sequences_are_not_applied_to_the_pixels() -> None:
    icon = Dataset()
    icon.VOILUTSequence = table([0, 65535], 0, 16)
    icon.ModalityLUTSequence = table([7, 7], 0, 16)
    data = made(STORED, IconImageSequence=Sequence([icon]), WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(image(data).values, STORED)
    assert image(data).vois == (Window(center=40, width=400),)


@pytest.mark.parametrize("slope", [1, 0.5, -2, 1e-3])
def test_rescale_goes_before_the_window(slope: float) -> None:
    data = made(STORED, RescaleSlope=slope, RescaleIntercept=-100, WindowCenter=40, WindowWidth=400)
    np.testing.assert_allclose(shown(data), linear(STORED * slope - 100.0, 40, 400), 0, 0.51)


def test_a_slope_of_zero_makes_one_grey() -> None:
    data = made(STORED, RescaleSlope=0, RescaleIntercept=40, WindowCenter=40, WindowWidth=401)
    np.testing.assert_allclose(shown(data), 128, 0, 0.51)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_a_factor_that_leaves_single_precision_is_a_fault(keyword: str) -> None:
    assert fault(made(STORED, **{keyword: "1e38"})).reason == "undecodable"


@pytest.mark.parametrize("slope", ["1e-30", "1e-300", "1e30"])
def test_extreme_factors_make_grey_levels(slope: str) -> None:
    data = made(STORED, RescaleSlope=slope, WindowCenter=40, WindowWidth=400)
    with np.errstate(all="raise", under="ignore"):
        result = shown(data)
    expected = linear(STORED * float(slope), 40, 400)
    np.testing.assert_allclose(result, expected, 0, 0.51)
