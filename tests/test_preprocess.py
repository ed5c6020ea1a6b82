"""From an image in modality units to grey levels: window, inversion, area-exact resize, rounding, in that order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi_lut

from imaging.preprocess import (
    IDENTITY,
    PreprocessSpec,
    Window,
    area_weights,
    prepare,
    to_modality_units,
)

SOFT = Window(center=40, width=400)
SIDES = st.integers(1, 60)
SIZES = st.integers(1, 40)


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
    shown = np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)
    return area_average(1 - shown if inverted else shown, size) * 255


@given(SIDES, SIDES, SIZES, st.booleans(), st.integers(0, 99))
def test_it_agrees_with_an_average_over_areas_in_double_precision(
    height: int, width: int, size: int, inverted: bool, seed: int
) -> None:
    values = noise(height, width, seed)
    expected = brute_force(values, SOFT, size, inverted)
    # A level off by a rounding is 0.5 + what single precision loses.
    assert np.abs(prepare(values, SOFT, size, inverted=inverted) - expected).max() < 0.501


def test_whole_ratios_are_means_of_blocks() -> None:
    image = levels(64, 64)
    means = image.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(prepare(image.astype(np.float32), IDENTITY, 16) - means).max() <= 0.5001


def test_weights_of_whole_ratios_are_those_of_blocks() -> None:
    np.testing.assert_array_equal(
        area_weights(12, 12, 4), np.kron(np.eye(4), np.full((1, 3), 1 / 3, np.float32))
    )


@given(SIDES, SIZES)
def test_weights_of_a_full_side_add_up_to_one(side: int, size: int) -> None:
    np.testing.assert_allclose(area_weights(side, side, size).sum(axis=1), 1, rtol=1e-5)


@given(SIDES, SIZES)
def test_every_pixel_weighs_the_same(side: int, size: int) -> None:
    np.testing.assert_allclose(area_weights(side, side, size).sum(axis=0), size / side, rtol=1e-5)


def test_the_same_size_leaves_the_levels_as_they_are() -> None:
    image = levels(28, 28)
    np.testing.assert_array_equal(prepare(image.astype(np.float32), IDENTITY, 28), image)


def test_enlarging_repeats_pixels() -> None:
    image = levels(8, 8)
    np.testing.assert_array_equal(
        prepare(image.astype(np.float32), IDENTITY, 16), image.repeat(2, axis=0).repeat(2, axis=1)
    )


@pytest.mark.parametrize("shape", [(10, 20), (20, 10)])
def test_an_oblong_image_lies_in_the_middle_of_black(shape: tuple[int, int]) -> None:
    shown = prepare(np.full(shape, 255, np.float32), IDENTITY, 20)
    along = shown if shape == (10, 20) else shown.T
    np.testing.assert_array_equal(along[:, 0], [0] * 5 + [255] * 10 + [0] * 5)


def test_an_inverted_image_lies_in_black_as_well() -> None:
    assert prepare(np.zeros((10, 20), np.float32), IDENTITY, 20, inverted=True)[0, 0] == 0


@pytest.mark.parametrize(("value", "level"), [(-1000, 0), (-160, 0), (39.5, 128), (239, 255), (3000, 255)])
def test_a_window_maps_its_bounds_to_black_and_white(value: float, level: int) -> None:
    assert prepare(np.full((4, 4), value, np.float32), SOFT, 4)[0, 0] == level


@given(st.integers(-500, 500), st.integers(2, 2000))
def test_a_window_shows_what_pydicom_shows(center: int, width: int) -> None:
    stored = np.arange(-800, 800, 7, dtype=np.int16)
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 16, 1
    dataset.WindowCenter, dataset.WindowWidth = center, width
    lower, upper = Window(center=center, width=width).bounds
    judged = (apply_voi_lut(stored, dataset) + 2**15) / (2**16 - 1)
    np.testing.assert_allclose(np.clip((stored - lower) / (upper - lower), 0, 1), judged, atol=1e-9)


def test_the_window_comes_before_the_resize() -> None:
    # Half air and half bone: their mean is soft tissue, which is in neither of them.
    values = np.tile(np.array([-1000, 1000], np.float32), (4, 2))
    assert np.all(prepare(values, SOFT, 2) == 128)


def test_the_other_order_would_differ_by_many_levels() -> None:
    values = np.tile(np.array([-1000, 200], np.float32), (4, 2))
    resized_first = prepare(np.full((2, 2), values.mean(), np.float32), SOFT, 2)
    assert abs(int(prepare(values, SOFT, 2)[0, 0]) - int(resized_first[0, 0])) > 86


def test_inversion_comes_after_the_window() -> None:
    assert prepare(np.full((4, 4), -1000, np.float32), SOFT, 4, inverted=True)[0, 0] == 255


@given(st.integers(0, 99))
def test_monochrome1_looks_like_its_mirrored_monochrome2(seed: int) -> None:
    values = noise(12, 12, seed)
    mirrored = 2 * np.float32(SOFT.center - 0.5) - values
    difference = prepare(mirrored, SOFT, 8, inverted=True).astype(int) - prepare(values, SOFT, 8)
    assert np.abs(difference).max() <= 1


@given(st.floats(-2000, 2000), st.floats(1.5, 5000), st.integers(0, 99))
def test_levels_come_back_from_modality_units(center: float, width: float, seed: int) -> None:
    image, window = levels(16, 16, seed), Window(center=center, width=width)
    np.testing.assert_array_equal(prepare(to_modality_units(image, window), window, 16), image)


def test_preparing_changes_nothing_of_its_input() -> None:
    values = noise(8, 8)
    before = values.copy()
    prepare(values, SOFT, 4, inverted=True)
    np.testing.assert_array_equal(values, before)


def test_the_result_is_bytes() -> None:
    assert prepare(noise(9, 7), SOFT, 5).dtype == np.uint8


@pytest.mark.parametrize("width", [1, 0, -5])
def test_a_window_must_be_wider_than_one(width: float) -> None:
    with pytest.raises(ValidationError, match="greater than 1"):
        Window(center=0, width=width)


@pytest.mark.parametrize("size_px", [15, 1025])
def test_a_size_out_of_bounds_is_refused(size_px: int) -> None:
    with pytest.raises(ValidationError, match="size_px"):
        PreprocessSpec(size_px=size_px)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        PreprocessSpec.model_validate({"sise_px": 64})


def test_equal_specs_have_equal_digests() -> None:
    assert PreprocessSpec(size_px=64).digest == PreprocessSpec().digest


@pytest.mark.parametrize(
    "other",
    [
        PreprocessSpec(size_px=65),
        PreprocessSpec(modality="MR"),
        PreprocessSpec(window="file"),
        PreprocessSpec(window=Window(center=40, width=401)),
    ],
    ids=["size", "modality", "file", "width"],
)
def test_each_setting_is_part_of_the_digest(other: PreprocessSpec) -> None:
    assert other.digest != PreprocessSpec().digest


@pytest.mark.parametrize(
    ("spec", "window"),
    [(PreprocessSpec(window="file"), IDENTITY), (PreprocessSpec(window=SOFT), SOFT)],
    ids=["file", "fixed"],
)
def test_a_portable_model_holds_the_fixed_window_alone(spec: PreprocessSpec, window: Window) -> None:
    assert spec.portable_window == window


@pytest.mark.parametrize(
    ("spec", "units"),
    [
        (PreprocessSpec(), "Hounsfield units"),
        (PreprocessSpec(modality="MR"), "modality units"),
        (PreprocessSpec(window="file"), "grey levels 0..255"),
        (PreprocessSpec.grey_levels(28), "grey levels 0..255"),
    ],
    ids=["ct", "mr", "file", "grey"],
)
def test_a_consumer_is_told_what_to_hand_in(spec: PreprocessSpec, units: str) -> None:
    assert spec.input_units == units
