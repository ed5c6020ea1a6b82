"""HD95 and surface Dice beside all pairs of distances, and where masks are empty, touch the border or are thin."""

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.statistics.surface_distance import TOLERANCE_MM, surface_agreement


def surface_points(mask: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Return the pixels of a mask with a neighbour across a side that is not of it, one by one."""
    points = []
    for at in map(tuple, np.argwhere(mask)):
        steps = [(axis, step) for axis in range(mask.ndim) for step in (-1, 1)]
        beside = [tuple(x + step * (n == axis) for n, x in enumerate(at)) for axis, step in steps]
        inside = [
            all(0 <= x < size for x, size in zip(one, mask.shape, strict=True)) and mask[one]
            for one in beside
        ]
        if not all(inside):
            points.append(at)
    return points


def by_all_pairs(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing: tuple[float, ...]
) -> tuple[float, float]:
    """A second implementation, by the definition: every distance of two surface pixels."""
    surfaces = [np.array(surface_points(mask)) * np.array(spacing) for mask in (truth, predicted)]
    pairs = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    directed = pairs.min(axis=1), pairs.min(axis=0)
    near = sum(int((one <= TOLERANCE_MM).sum()) for one in directed)
    return max(np.percentile(one, 95) for one in directed), near / sum(map(len, directed))


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((24, 24), (1.0, 1.0)),
        ((20, 14), (0.7, 2.5)),
        ((6, 12, 12), (5.0, 0.8, 0.8)),
        ((1, 9, 9), (3.0, 1, 1)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_both_measures_agree_with_all_pairs_of_surface_pixels(
    shape: tuple[int, ...], spacing: tuple[float, ...], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    balls = [
        np.linalg.norm((grid - draw.uniform(0, shape)) / np.array(shape), axis=-1) < draw.uniform(0.2, 0.5)
        for _ in range(2)
    ]
    # Some lone pixels and holes too.
    truth, predicted = (ball ^ (draw.random(shape) < 0.02) for ball in balls)
    assert truth.any() and predicted.any()
    expected = by_all_pairs(truth, predicted, spacing)
    assert surface_agreement(truth, predicted, spacing) == pytest.approx(expected)


def test_equal_masks_are_at_no_distance() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:7] = True
    assert surface_agreement(mask, mask, (1, 1)) == (0.0, 1.0)


def test_a_miss_and_a_false_alarm_are_as_far_as_the_image_is_wide() -> None:
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert surface_agreement(full, empty, (2.0, 2.0)) == (10.0, 0.0)
    assert surface_agreement(empty, full, (2.0, 2.0)) == (10.0, 0.0)


def test_nothing_in_both_is_not_measured() -> None:
    empty = np.zeros((3, 4), bool)
    assert np.isnan(surface_agreement(empty, empty, (1, 1))).all()


def test_the_distance_is_larger_along_the_axis_of_thick_slices() -> None:
    shapes = np.zeros((2, 5, 5, 5), bool)
    shapes[0, 1, 2, 2] = shapes[1, 2, 2, 2] = True
    assert surface_agreement(*shapes, (6.0, 1.0, 1.0)) == (6.0, 0.0)
    assert surface_agreement(*shapes.swapaxes(1, 3), (6.0, 1.0, 1.0)) == (1.0, 1.0)


def test_the_border_of_the_image_is_a_surface() -> None:
    whole = np.ones((9, 9), bool)
    inner = whole.copy()
    inner[[0, -1], :] = inner[:, [0, -1]] = False
    # Without it the larger one had no surface. Of its 32 pixels 4 are corners, more than 5 %.
    assert surface_agreement(whole, inner, (3.0, 3.0))[0] == pytest.approx(18**0.5)
