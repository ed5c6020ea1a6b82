"""Area average: exact at any ratio, type of number and bounds."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imaging.preprocess.area import area_average

KINDS = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64]


def exact(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Return the mean of the area that each output covers, in double precision."""
    side = len(values)
    edges = np.arange(size + 1) * side / size
    weights = np.zeros((size, side))
    for row in range(size):
        for column in range(side):
            overlap = min(edges[row + 1], column + 1) - max(edges[row], column)
            weights[row, column] = max(overlap, 0) * size / side
    return np.asarray(weights @ values.astype(np.float64) @ weights.T)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("side", "size"), [(64, 64), (64, 32), (65, 64), (512, 224), (300, 16), (509, 50), (129, 128)]
)
def test_the_average_is_exact(kind: Any, side: int, size: int) -> None:
    values = (np.random.default_rng(side).random((side, side)) * 100).astype(kind)
    np.testing.assert_allclose(area_average(values, size), exact(values, size), 2e-5, 1e-3)


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(0, 90), st.floats(-50, 150), st.floats(0, 100), st.sampled_from(KINDS))
def test_what_is_clipped_is_averaged_behind_it(
    size: int, more: int, lower: float, range_: float, kind: Any
) -> None:
    side = size + more
    values = (np.random.default_rng(side).random((side, side)) * 100).astype(kind)
    clipped = np.clip(values.astype(np.float64), lower, lower + range_)
    averaged = area_average(values, size, lower, lower + range_)
    np.testing.assert_allclose(averaged, exact(clipped, size), 2e-5, 1e-3)


@pytest.mark.parametrize("bounds", [(300.0, 400.0), (-400.0, -300.0), (-np.inf, 20.0), (20.0, np.inf)])
def test_bounds_outside_the_type_of_number_change_nothing(bounds: tuple[float, float]) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    averaged = area_average(values, 4, *bounds)
    np.testing.assert_allclose(averaged, exact(np.clip(values.astype(float), *bounds), 4))


def test_the_values_are_left_as_they_were() -> None:
    values = np.arange(64, dtype=np.int16).reshape(8, 8)
    values.setflags(write=False)
    area_average(values, 4, 10, 20)
    np.testing.assert_array_equal(values.ravel(), np.arange(64))


def test_a_view_of_a_larger_image_is_averaged_alike() -> None:
    large = np.random.default_rng(1).integers(0, 4096, (100, 120)).astype(np.uint16)
    part = large[10:74, 20:84]
    np.testing.assert_array_equal(area_average(part, 16), area_average(part.copy(), 16))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    before = cv2.getNumThreads()
    values = np.random.default_rng(2).integers(0, 4096, (512, 512)).astype(np.uint16)
    plain = [area_average(values, size) for size in (224, 256, 100)]
    try:
        cv2.setNumThreads(threads)
        for size, expected in zip((224, 256, 100), plain, strict=True):
            np.testing.assert_array_equal(area_average(values, size), expected)
        assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)
