"""Preparation of a volume: scaled as a whole, or at its true spacing and cropped or padded in the middle."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.image import Image
from imaging.image.window import IDENTITY, Sigmoid
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from imaging.preprocess.volume import prepare_volume

RANDOM = np.random.default_rng(8)


def spec(**changes: Any) -> PreprocessSpec:
    return PreprocessSpec(**{"kind": "volume", "window": IDENTITY, "slices": 4, "size_px": 16, **changes})


def blocks(values: NDArray[Any], *by: int) -> NDArray[np.float64]:
    """Return the means of blocks."""
    z, y, x = (n // b for n, b in zip(values.shape, by, strict=True))
    return np.asarray(values.astype(float).reshape(z, by[0], y, by[1], x, by[2]).mean((1, 3, 5)))


def volume(*shape: int, **changes: Any) -> Image:
    return Image(stored=RANDOM.integers(0, 256, shape).astype(np.float32), **changes)


def test_without_a_spacing_the_whole_is_scaled_to_the_size() -> None:
    image = volume(12, 64, 64)
    np.testing.assert_allclose(prepare_volume(image, spec()), blocks(image.stored, 3, 4, 4), 0, 1)


def test_the_shape_is_the_specs() -> None:
    for slices in (2, 3, 5, 40):
        for size in (7, 16, 33):
            levels = prepare_volume(volume(slices, size, size), spec(slices=5))
            assert levels.shape == spec(slices=5).shape == (5, 16, 16)
            assert levels.dtype == np.uint8


def test_a_plane_is_prepared_like_an_image() -> None:
    image = volume(4, 40, 50, spacing_mm=(2.0, 1.0, 0.7))
    for plane, levels in zip(image.stored, prepare_volume(image, spec()), strict=True):
        alone = Image(stored=plane, spacing_mm=(1.0, 0.7))
        np.testing.assert_allclose(levels.astype(int), prepare(alone, spec()).astype(int), 0, 1)


def test_with_a_spacing_voxels_become_that_large() -> None:
    image = volume(8, 32, 32, spacing_mm=(1.0, 0.5, 0.5))
    levels = prepare_volume(image, spec(spacing_mm=(2.0, 1.0, 1.0)))
    np.testing.assert_allclose(levels, blocks(image.stored, 2, 2, 2), 0, 1)


def test_what_is_larger_is_cropped_to_its_middle() -> None:
    image = volume(8, 32, 32, spacing_mm=(1.0, 1.0, 1.0))
    levels = prepare_volume(image, spec(spacing_mm=(1.0, 1.0, 1.0)))
    np.testing.assert_array_equal(levels, image.stored[2:6, 8:24, 8:24])


@pytest.mark.parametrize("inverted", [False, True])
def test_what_is_smaller_is_padded_with_black(inverted: bool) -> None:
    image = Image(
        stored=np.full((2, 8, 8), 0 if inverted else 255.0), inverted=inverted, spacing_mm=(1.0, 1.0, 1.0)
    )
    levels = prepare_volume(image, spec(spacing_mm=(1.0, 1.0, 1.0)))
    assert (levels[1:3, 4:12, 4:12] == 255).all()
    assert levels.astype(bool).sum() == 2 * 8 * 8


def test_a_thing_keeps_its_size_in_mm() -> None:
    coarse = np.zeros((10, 40, 40), np.float32)
    coarse[3:7, 10:30, 10:30] = 255
    one = prepare_volume(
        Image(stored=coarse, spacing_mm=(3.0, 1.0, 1.0)),
        spec(slices=30, size_px=40, spacing_mm=(1.0, 1.0, 1.0)),
    )
    assert (one > 127).any((1, 2)).sum() == pytest.approx(12, abs=1)
    assert (one > 127).any((0, 1)).sum() == 20


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0)])
def test_a_volume_without_a_spacing_cannot_be_given_one(spacing_mm: Any) -> None:
    with pytest.raises(DataFault) as caught:
        prepare_volume(volume(4, 16, 16, spacing_mm=spacing_mm), spec(spacing_mm=(1.0, 1.0, 1.0)))
    assert caught.value.reason == "no-geometry"


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("order", ["window-resize", "resize-window"])
def test_padding_is_black(spacing_mm: Any, inverted: bool, order: Any) -> None:
    stored = np.full((4, 16, 16), 100, np.float32)
    stored[:, :, :8] = -(2.0**62)
    image = Image(stored=stored, padding=(-(2.0**62),) * 2, inverted=inverted, spacing_mm=(1.0, 1.0, 1.0))
    for voi in (None, Sigmoid(100, 50)):
        changed = replace(image, vois=(voi,) if voi else ())
        window: Any = "file" if voi else IDENTITY
        levels = prepare_volume(changed, spec(window=window, spacing_mm=spacing_mm, order=order))
        assert (levels[:, :, :8] == 0).all()
        assert (levels[:, :, 8:] > 50).all()


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0)])
def test_one_window_of_percentiles_serves_all_planes(
    number: int, spacing: tuple[float, float, float] | None
) -> None:
    dark = np.arange(256.0).reshape(16, 16)
    image = Image(stored=np.stack([dark, dark, dark * 4, dark * 4]), spacing_mm=(1.0, 1.0, 1.0))
    levels = prepare_volume(image, spec(window="auto", window_number=number, spacing_mm=spacing)).astype(int)
    np.testing.assert_allclose(levels[0] * 4, levels[3], atol=4)


def test_one_slice_is_no_volume() -> None:
    # Else it would come out as one plane, repeated for all slices of the model's input.
    with pytest.raises(DataFault) as caught:
        prepare_volume(Image(stored=np.zeros((1, 8, 8), np.int16)), PreprocessSpec(kind="volume", slices=4))
    assert caught.value.reason == "no-volume"
