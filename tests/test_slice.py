"""Preparation of a slice: within one level of the exact result, in the order of the specification."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imaging.image.image import Image
from imaging.image.window import IDENTITY, Lut, Sigmoid, Voi, Window
from imaging.preprocess.area import area_weights
from imaging.preprocess.slice import choose_voi, percentile_window, prepare, to_modality_units
from imaging.preprocess.spec import PreprocessSpec

CT = Window(center=40, width=400)


def shares(length: int, side: float, size: int, margin: float) -> NDArray[np.float64]:
    """Return the share of each pixel in each output, in double precision."""
    edges = np.arange(size + 1) * side / size
    pixel = np.arange(length) + margin
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.clip(overlap, 0, None) * size / side)


def exact(image: Image, window: Window, spec: PreprocessSpec) -> NDArray[np.float64]:
    """Return unrounded levels of an image with square pixels: window, inversion, area average in a black square."""
    lower, upper = window.bounds
    values = image.stored.astype(np.float64) * image.slope + image.intercept
    white, black = (lower, upper) if image.inverted else (upper, lower)

    def show(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip((values - black) / (white - black), 0, 1)

    rows, columns = values.shape
    side = max(rows, columns)
    margins = [(side - length) // 2 for length in (rows, columns)]
    down, across = (shares(n, side, spec.size_px, m) for n, m in zip((rows, columns), margins, strict=True))
    if spec.order == "window-resize":
        return np.asarray(down @ show(values) @ across.T) * 255
    outside = 1 - down.sum(1)[:, None] * across.sum(1)[None]
    return show(down @ values @ across.T + outside * black) * 255


@settings(max_examples=150)
@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 90),
    size=st.integers(16, 80),
    kind=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
    slope=st.sampled_from([1.0, -1.0, 0.5, 2.7, -0.001, 1000.0]),
    intercept=st.sampled_from([0.0, -1024.0, 31.5]),
    place=st.floats(0, 1),
    share=st.floats(0.02, 2),
    inverted=st.booleans(),
    order=st.sampled_from(["window-resize", "resize-window"]),
)
def test_a_level_is_at_most_one_from_the_exact_one(
    rows: int,
    columns: int,
    size: int,
    kind: Any,
    slope: float,
    intercept: float,
    place: float,
    share: float,
    inverted: bool,
    order: Any,
) -> None:
    highest = 255 if kind is np.uint8 else 4095
    stored = (np.random.default_rng(rows * 91 + columns).random((rows, columns)) * highest).astype(kind)
    width = max(highest * share * abs(slope), 1.01)
    window = Window(center=place * highest * slope + intercept, width=width)
    image = Image(stored=stored, slope=slope, intercept=intercept, inverted=inverted)
    spec = PreprocessSpec(window=window, size_px=size, order=order)
    np.testing.assert_allclose(prepare(image, spec), exact(image, window, spec), 0, 1)


@pytest.mark.parametrize("offset", [0, 30_000, 65_000, 2_000_000_000])
@pytest.mark.parametrize("width", [2, 3, 50])
def test_a_narrow_window_far_from_zero_is_exact(offset: int, width: float) -> None:
    stored = np.random.default_rng(5).integers(0, 60, (64, 64)).astype(np.int64) + offset
    kind = np.uint16 if offset < 2**16 else np.int32
    image, window = Image(stored=stored.astype(kind)), Window(center=offset + 30, width=width)
    spec = PreprocessSpec(window=window, size_px=16)
    np.testing.assert_allclose(prepare(image, spec), exact(image, window, spec), 0, 1)


def test_the_two_orders_differ() -> None:
    stored = np.tile(np.array([[-3000, 3000], [3000, -3000]], np.int16), (16, 16))
    first, second = (
        prepare(Image(stored=stored), PreprocessSpec(window=CT, size_px=16, order=order))
        for order in ("window-resize", "resize-window")
    )
    assert first.max() == 128
    assert second.max() == 102  # 0 HU, of -160 to 239


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (20, 7), (7, 20)])
@pytest.mark.parametrize("inverted", [False, True])
def test_what_lies_beside_an_oblong_image_is_black(shape: tuple[int, int], inverted: bool) -> None:
    stored = np.full(shape, -3000 if inverted else 3000, np.int16)
    levels = prepare(Image(stored=stored, inverted=inverted), PreprocessSpec(size_px=32))
    assert levels.max() == 255
    assert levels.min() == 0
    share = np.count_nonzero(levels) / levels.size
    assert share == pytest.approx(min(shape) / max(shape), abs=0.1)


def test_a_small_image_is_drawn_larger() -> None:
    stored = np.array([[0, 255], [255, 0]], np.uint8)
    levels = prepare(Image(stored=stored), PreprocessSpec(window=IDENTITY, size_px=16))
    np.testing.assert_array_equal(levels, np.kron(stored, np.ones((8, 8), np.uint8)))


@pytest.mark.parametrize("spacing", [(1.0, 0.5), (0.5, 1.0), (1.0, 3.0), (0.7, 0.7)])
def test_a_spacing_sets_the_proportions(spacing: tuple[float, float]) -> None:
    image = Image(stored=np.full((60, 60), 3000, np.int16), spacing_mm=spacing)
    levels = prepare(image, PreprocessSpec(size_px=60)) == 255
    expected = [60 * min(1.0, spacing[axis] / spacing[1 - axis]) for axis in (0, 1)]
    assert [levels.any(1).sum(), levels.any(0).sum()] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("voi", [Sigmoid(40, 400), Lut(0, 8, np.arange(256, dtype=np.uint16))])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("order", ["window-resize", "resize-window"])
def test_a_curve_is_drawn_before_or_behind_the_average(voi: Voi, inverted: bool, order: Any) -> None:
    stored = np.random.default_rng(6).integers(0, 256, (64, 64)).astype(np.int16)
    spec = PreprocessSpec(window="file", size_px=32, order=order)
    levels = prepare(Image(stored=stored, vois=(voi,), inverted=inverted), spec)

    def show(values: NDArray[Any]) -> NDArray[Any]:
        shown = voi.show(values.astype(np.float32))
        return 1 - shown if inverted else shown

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values.astype(np.float64).reshape(32, 2, 32, 2).mean((1, 3)))

    expected = mean(show(stored)) if order == "window-resize" else show(mean(stored))
    np.testing.assert_allclose(levels, expected * 255, 0, 1)


def test_a_slope_of_zero_is_one_grey() -> None:
    image = Image(stored=np.arange(256, dtype=np.uint8).reshape(16, 16), slope=0.0, intercept=39.5)
    assert (prepare(image, PreprocessSpec(size_px=16)) == 128).all()


def test_the_specs_window_is_stronger_than_the_files() -> None:
    image = Image(stored=np.zeros((2, 2), np.uint8), vois=(IDENTITY,))
    assert choose_voi(image, PreprocessSpec(window=CT)) == CT
    assert choose_voi(image, PreprocessSpec(window="file")) == IDENTITY


def test_levels_come_back_as_the_same_levels() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = to_modality_units(levels, CT)
    np.testing.assert_array_equal(
        prepare(Image(stored=values), PreprocessSpec(window=CT, size_px=16)), levels
    )


def test_the_stored_values_are_left_as_they_were() -> None:
    stored = np.random.default_rng(7).integers(-1000, 1000, (40, 40)).astype(np.int16)
    before = stored.copy()
    for order in ("window-resize", "resize-window"):
        prepare(Image(stored=stored, padding=(-1000, 0)), PreprocessSpec(size_px=16, order=order))
    np.testing.assert_array_equal(stored, before)


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 40))
def test_weights_take_each_pixel_once(length: int, size: int, more: float) -> None:
    side = length + more
    taken = area_weights(length, side, size).sum(0) * (side / size)
    np.testing.assert_allclose(taken, 1, 0, 1e-3)


AUTO = PreprocessSpec(modality="MR", size_px=16)


def test_a_window_of_the_file_is_taken_before_percentiles() -> None:
    assert choose_voi(Image(stored=np.arange(9.0), vois=(CT,)), AUTO) is CT


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (2.5, -1024.0), (-1.0, 7.0), (1e-4, 0.0)])
def test_percentiles_are_of_values_in_modality_units(slope: float, intercept: float) -> None:
    stored = np.random.default_rng(3).integers(0, 4000, (50, 60))
    low, high = percentile_window(Image(stored=stored, slope=slope, intercept=intercept)).bounds
    expected = np.percentile(stored * slope + intercept, (0.5, 99.5))
    np.testing.assert_allclose((low, high), expected, rtol=1e-9, atol=1e-9)


def test_a_few_bright_pixels_do_not_darken_the_rest() -> None:
    stored = np.random.default_rng(4).integers(0, 1000, (100, 100))
    plain = percentile_window(Image(stored=stored)).bounds
    stored[:4, :10] = 30_000
    assert percentile_window(Image(stored=stored)).bounds[1] <= plain[1] + 10


def test_padding_does_not_count_in_percentiles() -> None:
    stored = np.full((40, 40), -2000.0)
    stored[10:30, 10:30] = np.arange(400).reshape(20, 20)
    low, _ = percentile_window(Image(stored=stored, padding=(-2000.0, -2000.0))).bounds
    assert low > 0


@pytest.mark.parametrize("padding", [None, (5.0, 5.0)])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("value", [0.0, 5.0, -1000.0, 1e-12])
def test_an_image_of_one_value_is_black(
    value: float, inverted: bool, padding: tuple[float, float] | None
) -> None:
    image = Image(stored=np.full((20, 20), value), inverted=inverted, padding=padding)
    assert not prepare(image, AUTO).any()


@pytest.mark.parametrize("scale", [1e-3, 1e-6, 3e-9, 1e12])
def test_percentiles_show_values_of_any_size(scale: float) -> None:
    # Diffusion in square metres a second is about 1e-9.
    ramp = np.linspace(0, scale, 1024).reshape(32, 32)
    levels = prepare(Image(stored=ramp.astype(np.float32)), AUTO)
    assert levels.min() < 5
    assert levels.max() > 250
