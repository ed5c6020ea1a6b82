"""Resampling, cropping and padding of volumes."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from imaging.errors import DataFault, UserFault
from imaging.preprocess import resample as module
from imaging.preprocess.resample import axes, crop_or_pad, resample, resampled_affine

LENGTHS = st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
SPACINGS = st.tuples(*[st.floats(0.3, 4)] * 3)
SPACING = (2.5, 0.78125, 0.78125)
NEW_SPACING = (2.0, 1.0, 1.0)


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1000, 2000, shape).astype(np.float32)


def linear(volume: NDArray[Any], spacing: tuple[float, ...], new: tuple[float, ...]) -> NDArray[np.float64]:
    """Interpolate in double precision at the new centres, which share the first edge with the old voxels."""
    at = [
        (np.arange(axis.size) + 0.5) / axis.factor - 0.5
        for axis in axes(volume.shape, spacing, new, antialias=False)
    ]
    grid = np.meshgrid(*at, indexing="ij")
    result: NDArray[np.float64] = ndimage.map_coordinates(
        volume.astype(np.float64), grid, order=1, mode="nearest"
    )
    return result


def area(line: NDArray[np.float64], size: int, step: float) -> NDArray[np.float64]:
    """Average what each new voxel covers of a line, from the integral up to its edges."""
    edges = np.minimum(np.arange(size + 1) * step, len(line))
    integral = np.interp(edges, np.arange(len(line) + 1), np.concatenate([[0], line.cumsum()]))
    return np.diff(integral) / np.diff(edges)


def by_definition(
    volume: NDArray[Any], spacing: tuple[float, ...], new: tuple[float, ...]
) -> NDArray[np.float64]:
    """Resample each axis with its own kernel in double precision: area to coarser voxels, linear to finer ones."""
    result = volume.astype(np.float64)
    for number, axis in enumerate(axes(volume.shape, spacing, new)):
        if axis.factor < 1:
            result = np.apply_along_axis(area, number, result, axis.size, 1 / axis.factor)
        else:
            at = (np.arange(axis.size) + 0.5) / axis.factor - 0.5
            result = np.apply_along_axis(
                lambda line, at=at: np.interp(at, np.arange(len(line)), line), number, result
            )
    return result


def itk_image(volume: NDArray[Any], spacing: tuple[float, float, float]) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing(spacing[::-1])
    return image


@pytest.mark.slow
@given(LENGTHS, SPACINGS, SPACINGS, st.integers(0, 99))
@settings(max_examples=200)
def test_it_agrees_with_its_definition_in_double_precision(
    shape: tuple[int, ...], spacing: tuple[float, float, float], new: tuple[float, float, float], seed: int
) -> None:
    volume = noise(shape, seed)
    np.testing.assert_allclose(resample(volume, spacing, new), by_definition(volume, spacing, new), atol=0.01)


@given(LENGTHS, SPACINGS, SPACINGS, st.integers(0, 99))
@settings(max_examples=200)
def test_without_antialiasing_it_is_linear_everywhere(
    shape: tuple[int, ...], spacing: tuple[float, float, float], new: tuple[float, float, float], seed: int
) -> None:
    volume = noise(shape, seed)
    result = resample(volume, spacing, new, antialias=False)
    np.testing.assert_allclose(result, linear(volume, spacing, new), atol=0.01)


@pytest.mark.parametrize("factor", [0.999, 1.001])
def test_a_spacing_that_changes_no_size_still_changes_the_grid(factor: float) -> None:
    volume, new = noise((3, 50, 50)), (1.0, factor, factor)
    result = resample(volume, (1.0, 1.0, 1.0), new)
    assert result.shape == volume.shape
    np.testing.assert_allclose(result, by_definition(volume, (1.0, 1.0, 1.0), new), atol=0.01)


def test_finer_in_one_direction_and_coarser_in_the_other_keeps_both_kernels() -> None:
    volume, spacing, new = noise((3, 40, 50)), (1.0, 1.0, 1.0), (1.0, 2.2, 0.7)
    np.testing.assert_allclose(resample(volume, spacing, new), by_definition(volume, spacing, new), atol=0.01)


def test_a_clinical_volume_is_within_a_thousandth_of_a_level_of_scipy() -> None:
    volume = noise((24, 256, 256))
    off = resample(volume, SPACING, NEW_SPACING, antialias=False) - linear(volume, SPACING, NEW_SPACING)
    assert np.abs(off).max() < 1e-3


def test_simple_itk_gives_the_same_on_the_grid_that_the_affine_describes() -> None:
    volume, spacing, new = noise((10, 40, 30)), (2.0, 0.5, 0.7), (1.3, 0.6, 0.4)
    result = resample(volume, spacing, new, antialias=False)
    grid = resampled_affine(np.diag([*spacing[::-1], 1.0]), spacing, new)
    theirs = SimpleITK.Resample(
        itk_image(volume, spacing),
        result.shape[::-1],
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        grid[:3, 3].tolist(),
        grid.diagonal()[:3].tolist(),
        np.eye(3).ravel().tolist(),
    )
    np.testing.assert_allclose(result, SimpleITK.GetArrayFromImage(theirs), atol=0.01)


def test_the_new_affine_has_the_new_spacing_and_the_old_first_corner() -> None:
    turned = np.array([[0.0, -3, 0, 10], [2, 0, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]])
    result = resampled_affine(turned, (5.0, 3.0, 2.0), (2.5, 1.0, 4.0))
    np.testing.assert_allclose(np.linalg.norm(result[:3, :3], axis=0), (4.0, 1.0, 2.5))
    corner = (-0.5, -0.5, -0.5, 1)
    np.testing.assert_allclose(result @ corner, turned @ corner)


def test_the_same_spacing_gives_the_same_values() -> None:
    volume = noise((3, 20, 10))
    np.testing.assert_array_equal(resample(volume, SPACING, SPACING), volume)


def test_whole_ratios_are_means_of_blocks() -> None:
    volume = noise((4, 12, 20))
    blocks = volume.reshape(2, 2, 4, 3, 5, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(resample(volume, (1, 1, 1), (2, 3, 4)), blocks, atol=0.01)


def test_the_mean_of_an_even_field_is_kept_to_the_last_digit() -> None:
    # OpenCV's area kernel drops overlaps below a thousandth of a pixel without giving their weight to the others.
    result = resample(
        np.full((1, 6, 6), 1700, np.int16), (1, 2.3245482287585206, 2.3245482287585206), (1, 3.875, 3.875)
    )
    np.testing.assert_allclose(result, 1700, rtol=1e-6)


def test_a_fine_pattern_turns_grey_and_does_not_alias() -> None:
    board = (np.indices((2, 60, 60)).sum(axis=0) % 2 * 100).astype(np.float32)
    new = (1.0, 2.5, 2.5)
    assert np.ptp(resample(board, (1, 1, 1), new)) < 10
    assert np.ptp(resample(board, (1, 1, 1), new, antialias=False)) > 10


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64, np.dtype(">i2"), np.bool_])
def test_any_kind_of_number_is_taken(dtype: Any) -> None:
    volume = np.random.default_rng(0).integers(0, 2, (4, 8, 9)).astype(dtype)
    expected = resample(volume.astype(np.float32), SPACING, NEW_SPACING)
    np.testing.assert_array_equal(resample(volume, SPACING, NEW_SPACING), expected)


def test_a_view_and_a_read_only_volume_are_taken_and_left_as_they_are() -> None:
    volume = noise((4, 20, 30))
    before = volume.copy()
    volume.flags.writeable = False
    view = volume.transpose(0, 2, 1)[::-1, ::2]
    np.testing.assert_array_equal(
        resample(view, SPACING, NEW_SPACING), resample(view.copy(), SPACING, NEW_SPACING)
    )
    np.testing.assert_array_equal(volume, before)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40_000, 2, 2), (2, 40_000, 2), (2, 2, 40_000)])
def test_an_axis_may_be_longer_than_sixteen_bits_count(shape: tuple[int, ...]) -> None:
    volume, new = noise(shape), (0.9, 1.1, 1.1)
    np.testing.assert_allclose(
        resample(volume, (1, 1, 1), new), by_definition(volume, (1, 1, 1), new), atol=0.5
    )


def test_at_least_one_voxel_is_left() -> None:
    volume = noise((2, 3, 4))
    np.testing.assert_allclose(
        resample(volume, (1, 1, 1), (99, 99, 99)), volume.mean().reshape(1, 1, 1), rtol=1e-4
    )


@pytest.mark.parametrize("new", [NEW_SPACING, (4.0, 1.0, 1.0), (1.0, 0.5, 0.5)])
def test_beside_the_result_it_needs_memory_for_a_few_slices(new: tuple[float, float, float]) -> None:
    volume = np.zeros((60, 256, 256), np.int16)
    tracemalloc.start()
    result = resample(volume, SPACING, new)
    extra = tracemalloc.get_traced_memory()[1] - result.nbytes
    tracemalloc.stop()
    assert extra < 8 * max(result[0].nbytes, 2 * volume[0].nbytes)


@pytest.mark.parametrize("new", [(0.0, 1, 1), (1, -1.0, 1), (1, 1, float("nan")), (float("inf"), 1, 1)])
def test_a_new_spacing_that_is_no_length_is_the_users_fault(new: tuple[float, float, float]) -> None:
    with pytest.raises(UserFault, match="new_spacing_mm"):
        resample(noise((2, 2, 2)), SPACING, new)


def test_an_old_spacing_that_is_no_length_is_the_files_fault() -> None:
    with pytest.raises(DataFault, match="no-geometry"):
        resample(noise((2, 2, 2)), (1.0, 0.0, 1.0), NEW_SPACING)


@pytest.mark.parametrize("spacing", [(1e3, 1e3, 1e3), (1e300, 1e300, 1e300)])
def test_a_damaged_spacing_does_not_take_all_memory(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(DataFault, match="too-large"):
        resample(noise((2, 2, 2)), spacing, (0.1, 0.1, 0.1))


def test_too_large_a_size_to_pad_to_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VOXELS", 26)
    with pytest.raises(DataFault, match="3 x 3 x 3"):
        crop_or_pad(noise((2, 2, 2)), (3, 3, 3), 0)


# Crop and pad.


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [2]),
        (2, [2, 3]),
        (3, [1, 2, 3]),
        (4, [1, 2, 3, 4]),
        (5, [1, 2, 3, 4, -9]),
        (6, [-9, 1, 2, 3, 4, -9]),
        (7, [-9, 1, 2, 3, 4, -9, -9]),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_middle_stays_in_the_middle(size: int, expected: list[int], axis: int) -> None:
    line = np.moveaxis(np.arange(1, 5, dtype=np.int16).reshape(4, 1, 1), 0, axis)
    sizes = [1, 1, 1]
    sizes[axis] = size
    result = crop_or_pad(line, (sizes[0], sizes[1], sizes[2]), -9)
    assert (result.ravel().tolist(), result.dtype, list(result.shape)) == (expected, np.int16, sizes)


@given(LENGTHS, LENGTHS)
def test_cropping_undoes_padding(shape: tuple[int, int, int], more: tuple[int, int, int]) -> None:
    volume = noise(shape)
    larger = (shape[0] + more[0], shape[1] + more[1], shape[2] + more[2])
    np.testing.assert_array_equal(crop_or_pad(crop_or_pad(volume, larger, 0), shape, 0), volume)


def test_one_axis_can_be_cropped_while_another_is_padded() -> None:
    result = crop_or_pad(np.arange(4).reshape(1, 4, 1), (3, 2, 1), -1)
    np.testing.assert_array_equal(result[:, :, 0], [[-1, -1], [1, 2], [-1, -1]])


def test_the_result_is_a_copy() -> None:
    volume = noise((2, 2, 2))
    assert not np.shares_memory(crop_or_pad(volume, (2, 2, 2), 0), volume)


def test_a_size_of_nothing_is_the_users_fault() -> None:
    with pytest.raises(UserFault, match="size"):
        crop_or_pad(noise((2, 2, 2)), (2, 0, 2), 0)
