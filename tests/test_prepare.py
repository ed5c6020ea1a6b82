"""From an image in modality units to grey levels: window, inversion, area-exact resize, rounding, in that order."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi_lut

from imaging.errors import DataFault
from imaging.image import Image
from imaging.prepare import area_weights, prepare, to_modality_units
from imaging.preprocess import PreprocessSpec
from imaging.window import IDENTITY, Lut, Sigmoid, Voi, Window

SOFT = Window(center=40, width=400)
SIDES = st.integers(1, 90)
SIZES = st.integers(16, 48)
OWN = PreprocessSpec(window="file", size_px=16)
RESIZED_FIRST = PreprocessSpec(window=SOFT, size_px=16, order="resize-window")
RESIZED_LAST = PreprocessSpec(window=SOFT, size_px=16)


def shown(values: NDArray[Any], window: Window, size: int, **told: Any) -> NDArray[np.uint8]:
    """Return the grey levels of values, through a window of the spec."""
    return prepare(Image(stored=values, **told), PreprocessSpec(window=window, size_px=size))


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Return values that reach beyond the soft-tissue window on both sides."""
    return np.random.default_rng(seed).uniform(-400, 500, (height, width)).astype(np.float32)


def levels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def area_average(image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Average each output pixel over its area of the padded square, one by one."""
    side = max(image.shape)
    square = np.zeros((side, side))
    top, left = ((side - length) // 2 for length in image.shape)
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    # The integral up to any point is linear in both directions between the pixels' corners.
    corners = np.pad(square.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    at = np.linspace(0, side, size + 1)
    rows = np.array([np.interp(at, np.arange(side + 1), column) for column in corners.T]).T
    whole = np.array([np.interp(at, np.arange(side + 1), row) for row in rows])
    means: NDArray[np.float64] = np.diff(np.diff(whole, axis=0), axis=1) / (side / size) ** 2
    return means


def brute_force(
    values: NDArray[np.float32], window: Window, size: int, inverted: bool
) -> NDArray[np.float64]:
    """Return the unrounded levels in double precision, from the formula of PS3.3 C.11.2.1.2.1."""
    x, c, w = values.astype(np.float64), window.center, window.width
    share = np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)
    return area_average(1 - share if inverted else share, size) * 255


@given(SIDES, SIDES, SIZES, st.booleans(), st.integers(0, 99))
def test_it_agrees_with_an_average_over_areas_in_double_precision(
    height: int, width: int, size: int, inverted: bool, seed: int
) -> None:
    values = noise(height, width, seed)
    expected = brute_force(values, SOFT, size, inverted)
    # A level off by a rounding is 0.5 + what single precision loses.
    assert np.abs(shown(values, SOFT, size, inverted=inverted) - expected).max() < 0.501


def test_whole_ratios_are_means_of_blocks() -> None:
    image = levels(64, 64)
    means = image.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(shown(image.astype(np.float32), IDENTITY, 16) - means).max() <= 0.5001


def test_weights_of_whole_ratios_are_those_of_blocks() -> None:
    np.testing.assert_array_equal(
        area_weights(12, 12, 4), np.kron(np.eye(4), np.full((1, 3), 1 / 3, np.float32))
    )


@given(SIDES, st.integers(1, 40))
def test_weights_of_a_full_side_add_up_to_one(side: int, size: int) -> None:
    np.testing.assert_allclose(area_weights(side, side, size).sum(axis=1), 1, rtol=1e-5)


@given(SIDES, st.integers(1, 40))
def test_every_pixel_weighs_the_same(side: int, size: int) -> None:
    np.testing.assert_allclose(area_weights(side, side, size).sum(axis=0), size / side, rtol=1e-5)


def test_the_same_size_leaves_the_levels_as_they_are() -> None:
    image = levels(28, 28)
    np.testing.assert_array_equal(shown(image.astype(np.float32), IDENTITY, 28), image)


def test_enlarging_repeats_pixels() -> None:
    image = levels(8, 8)
    np.testing.assert_array_equal(
        shown(image.astype(np.float32), IDENTITY, 16), image.repeat(2, axis=0).repeat(2, axis=1)
    )


@pytest.mark.parametrize("shape", [(10, 20), (20, 10)])
def test_an_oblong_image_lies_in_the_middle_of_black(shape: tuple[int, int]) -> None:
    square = shown(np.full(shape, 255, np.float32), IDENTITY, 20)
    along = square if shape == (10, 20) else square.T
    np.testing.assert_array_equal(along[:, 0], [0] * 5 + [255] * 10 + [0] * 5)


def test_an_inverted_image_lies_in_black_as_well() -> None:
    assert shown(np.zeros((10, 20), np.float32), IDENTITY, 20, inverted=True)[0, 0] == 0


@pytest.mark.parametrize(("value", "level"), [(-1000, 0), (-160, 0), (39.5, 128), (239, 255), (3000, 255)])
def test_a_window_maps_its_bounds_to_black_and_white(value: float, level: int) -> None:
    assert shown(np.full((4, 4), value, np.float32), SOFT, 16)[0, 0] == level


@given(st.integers(-500, 500), st.integers(2, 2000))
def test_a_window_shows_what_pydicom_shows(center: int, width: int) -> None:
    stored = np.arange(-800, 800, 7, dtype=np.int16)
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 16, 1
    dataset.WindowCenter, dataset.WindowWidth = center, width
    lower, upper = Window(center=center, width=width).bounds
    judged = (apply_voi_lut(stored, dataset) + 2**15) / (2**16 - 1)
    np.testing.assert_allclose(np.clip((stored - lower) / (upper - lower), 0, 1), judged, atol=1e-9)


def halves(dark: float, bright: float) -> Image:
    """Return an image of columns in turn dark and bright, of which each pair becomes one pixel of 16."""
    return Image(stored=np.tile(np.array([dark, bright], np.float32), (32, 16)))


def test_the_window_comes_before_the_resize() -> None:
    # Half air and half bone: their mean is soft tissue, which is in neither of them.
    assert np.all(prepare(halves(-1000, 1000), RESIZED_LAST) == 128)


def test_the_resize_comes_first_where_the_spec_says_so() -> None:
    (level,) = np.unique(prepare(halves(-1000, 1000), RESIZED_FIRST))
    assert level == 102  # 0 HU, which stands 160 of 399 above black


def test_the_two_orders_differ_by_many_levels() -> None:
    image = halves(-1000, 200)
    first, second = (int(prepare(image, spec)[0, 0]) for spec in (RESIZED_LAST, RESIZED_FIRST))
    assert abs(first - second) > 86


@given(SIDES, SIDES, st.booleans(), st.integers(0, 99))
def test_resized_first_agrees_with_an_average_in_double_precision(
    height: int, width: int, inverted: bool, seed: int
) -> None:
    values, (black, white) = noise(height, width, seed), SOFT.bounds
    dark = white if inverted else black
    mean = area_average(values.astype(np.float64) - dark, 16) + dark
    share = np.clip((mean - black) / (white - black), 0, 1)
    expected = 255 * (1 - share if inverted else share)
    found = prepare(Image(stored=values, inverted=inverted), RESIZED_FIRST)
    assert np.abs(found - expected).max() < 0.501


def test_inversion_comes_after_the_window() -> None:
    assert shown(np.full((4, 4), -1000, np.float32), SOFT, 16, inverted=True)[0, 0] == 255


@given(st.integers(0, 99))
def test_monochrome1_looks_like_its_mirrored_monochrome2(seed: int) -> None:
    values = noise(12, 12, seed)
    mirrored = 2 * np.float32(SOFT.center - 0.5) - values
    difference = shown(mirrored, SOFT, 16, inverted=True).astype(int) - shown(values, SOFT, 16)
    assert np.abs(difference).max() <= 1


@given(st.floats(-2000, 2000), st.floats(1.5, 5000), st.integers(0, 99))
def test_levels_come_back_from_modality_units(center: float, width: float, seed: int) -> None:
    image, window = levels(16, 16, seed), Window(center=center, width=width)
    np.testing.assert_array_equal(shown(to_modality_units(image, window), window, 16), image)


def test_preparing_changes_nothing_of_its_input() -> None:
    values = noise(32, 32)
    before = values.copy()
    shown(values, SOFT, 16, inverted=True)
    np.testing.assert_array_equal(values, before)


def test_the_result_is_bytes() -> None:
    assert shown(noise(9, 7), SOFT, 16).dtype == np.uint8


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (0.5, -300.0), (-1.0, 800.0), (0.0, 40.0)])
@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.uint8])
@pytest.mark.parametrize("spec", [RESIZED_LAST, RESIZED_FIRST], ids=["last", "first"])
def test_stored_values_are_shown_as_their_modality_units(
    slope: float, intercept: float, kind: Any, spec: PreprocessSpec
) -> None:
    stored = np.random.default_rng(0).integers(0, min(2000, np.iinfo(kind).max), (48, 40)).astype(kind)
    image = Image(stored=stored, slope=slope, intercept=intercept)
    units = Image(stored=image.values)
    assert np.abs(prepare(image, spec).astype(int) - prepare(units, spec)).max() <= 1


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("padding", [(-2000.0, -2000.0), (3000.0, 3000.0), (50.0, 60.0)], ids=str)
@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("spec", [RESIZED_LAST, RESIZED_FIRST], ids=["last", "first"])
def test_padding_is_black_wherever_its_value_lies(
    kind: Any, padding: tuple[float, float], inverted: bool, spec: PreprocessSpec
) -> None:
    stored = np.full((32, 32), 239, kind)
    stored[:, :16] = padding[0]
    image = Image(stored=stored, padding=padding, inverted=inverted)
    assert not prepare(image, spec)[:, :8].any()
    assert np.all(prepare(image, spec)[:, 8:] == (0 if inverted else 255))


@pytest.mark.parametrize("spacing", [(2.0, 1.0), (0.5, 0.25)])
def test_pixels_that_are_not_square_keep_their_proportions(spacing: tuple[float, float]) -> None:
    white = Image(stored=np.full((20, 20), 255, np.uint8), spacing_mm=spacing)
    square = prepare(white, PreprocessSpec.grey_levels(20))
    np.testing.assert_array_equal(square[0], [0] * 5 + [255] * 10 + [0] * 5)


def test_a_table_of_the_file_is_used() -> None:
    table = Lut(first=10, bits=8, entries=np.array([0, 255, 51], np.uint16))
    image = Image(stored=np.array([[9, 10], [11, 99]]), vois=(table,))
    np.testing.assert_array_equal(prepare(image, OWN)[::8, ::8], [[0, 0], [255, 51]])


@pytest.mark.parametrize("voi", [Sigmoid(40.0, 400.0), SOFT])
def test_the_middle_of_a_window_is_half_way(voi: Voi) -> None:
    image = Image(stored=np.full((16, 16), 40.0, np.float32), vois=(voi,))
    assert abs(int(prepare(image, OWN)[0, 0]) - 128) <= 1


def test_a_curve_of_an_inverted_file_is_turned_over() -> None:
    image = Image(stored=np.full((16, 16), 5000, np.int16), vois=(Sigmoid(40.0, 400.0),))
    assert (prepare(image, OWN).max(), prepare(replace(image, inverted=True), OWN).max()) == (255, 0)


@pytest.mark.parametrize("order", ["window-resize", "resize-window"])
@pytest.mark.parametrize("inverted", [True, False])
def test_padding_under_a_curve_is_black(order: str, inverted: bool) -> None:
    stored = np.full((32, 32), 5000 if not inverted else -5000, np.int16)
    stored[:, :16] = 7
    image = Image(stored=stored, vois=(Sigmoid(40.0, 400.0),), padding=(7, 7), inverted=inverted)
    spec = PreprocessSpec(window="file", size_px=16, order=order)  # type: ignore[arg-type]
    assert (prepare(image, spec)[:, 8:].min(), prepare(image, spec)[:, :8].max()) == (255, 0)


def test_the_number_says_which_of_a_files_windows() -> None:
    image = Image(stored=np.full((16, 16), 100, np.int16), vois=(Window(center=0, width=2), IDENTITY))
    levels = [prepare(image, OWN.model_copy(update={"window_number": n}))[0, 0] for n in (1, 2)]
    assert levels == [255, 100]


@pytest.mark.parametrize("number", [2, 3])
def test_a_window_that_the_file_does_not_offer_is_a_fault_with_both_numbers(number: int) -> None:
    spec = OWN.model_copy(update={"window_number": number})
    with pytest.raises(DataFault, match=f"offers 1 windows, number {number} is asked for") as caught:
        prepare(Image(stored=np.zeros((4, 4)), vois=(SOFT,)), spec)
    assert caught.value.reason == "no-window"
