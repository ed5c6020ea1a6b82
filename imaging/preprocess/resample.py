"""Resampling of a volume to another spacing, and cropping and padding to a size.

Along each axis the grids share their first edge, not their first centre: voxel i covers [i, i + 1) x spacing, so
that new voxel i is centred on old voxel (i + 1/2) x new / old - 1/2. The new spacing is exact; the number of voxels is
rounded, so the far edge moves by at most half a new voxel. Values are constant beyond the outer centres.

Two kernels, chosen for each axis by itself:

linear, to finer voxels: equal to SimpleITK's sitkLinear and to scipy's map_coordinates(order=1, mode="nearest").
area, to coarser voxels: the mean of the area of a new voxel, at whole ratios the mean of blocks. It does not alias;
linear does, as it uses two neighbours only and skips the others (`antialias=False`, for comparison).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, prod
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault, UserFault
from imaging.preprocess.area import overlaps

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Volume = NDArray[np.float32]
Indices = NDArray[np.intp]
Weights = NDArray[np.float64]

MAX_VOXELS = 2**30
"""The largest result, 4 GiB: a damaged spacing of a metre must not make a volume of a terabyte."""


@dataclass(frozen=True, slots=True)
class ResampledAxis:
    """Resampling of one axis from `length` to `size` voxels, `factor` times as many but for rounding.

    The kernel is the area if `area` is set, else linear.
    """

    length: int
    size: int
    factor: float
    area: bool

    def weights(self) -> tuple[Indices, Weights]:
        """Return the old voxels that each new voxel is made of, and their weights: (size, taps) each."""
        if self.area:
            start = np.arange(self.size)[:, None] / self.factor
            end = np.minimum(start + 1 / self.factor, self.length)
            taps = start.astype(np.intp) + np.arange(ceil(1 / self.factor) + 1)
            shares = overlaps(start, end, taps)
            return np.minimum(taps, self.length - 1), shares / shares.sum(axis=1, keepdims=True)
        at = np.clip((np.arange(self.size) + 0.5) / self.factor - 0.5, 0, self.length - 1)
        taps = np.floor(at).astype(np.intp)[:, None] + (0, 1)
        share = at - taps[:, 0]
        return np.minimum(taps, self.length - 1), np.stack([1 - share, share], axis=1)

    def matrix(self) -> "csr_array":
        """Return the weights as a sparse matrix (size, length)."""
        # Loaded here: it takes a seventh of the time in which a worker starts, and slices do not need it.
        from scipy.sparse import csr_array

        taps, shares = self.weights()
        at = (np.repeat(np.arange(self.size), taps.shape[1]), taps.ravel())
        matrix = csr_array((shares.ravel().astype(np.float32), at), shape=(self.size, self.length))
        matrix.eliminate_zeros()
        return matrix


def resample(
    volume: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    new_spacing_mm: tuple[float, float, float],
    *,
    antialias: bool = True,
) -> Volume:
    """Return a volume (slices, rows, columns) of any type of number on a grid of another spacing.

    The spacings are in the order of the axes. Beside the result this needs memory for a few slices only. Raises
    UserFault for a new spacing that is not above 0, DataFault "no-geometry" for such an old one and "too-large" where
    the result would have more than MAX_VOXELS.

    >>> resample(np.arange(4).reshape(4, 1, 1), (1, 1, 1), (2, 1, 1)).ravel()
    array([0.5, 2.5], dtype=float32)
    """
    slices, rows, columns = axes(volume.shape, spacing_mm, new_spacing_mm, antialias=antialias)
    result = np.empty((slices.size, rows.size, columns.size), np.float32)
    resize = _plane_resizer(rows, columns)
    # New slices use old ones in ascending order, and at most two neighbours more than once.
    resized, numbers = np.empty((2, rows.size, columns.size), np.float32), [-1, -1]
    for one, taps, shares in zip(result, *map(np.ndarray.tolist, slices.weights()), strict=True):
        used = [(tap, share) for tap, share in zip(taps, shares, strict=True) if share]
        for nth, (tap, share) in enumerate(used):
            if numbers[tap % 2] != tap:
                resize(volume[tap].astype(np.float32, copy=False), resized[tap % 2])
                numbers[tap % 2] = tap
            if nth:
                cv2.scaleAdd(resized[tap % 2], share, one, dst=one)
            else:
                np.multiply(resized[tap % 2], np.float32(share), out=one)
    return result


def axes(
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    new_spacing_mm: tuple[float, ...],
    *,
    antialias: bool = True,
) -> list[ResampledAxis]:
    """Return the resampling of each axis; raise as `resample` does."""
    if not all(isfinite(value) and value > 0 for value in new_spacing_mm):
        raise UserFault(f"new_spacing_mm is {new_spacing_mm}: give lengths above 0 mm")
    if not all(isfinite(value) and value > 0 for value in spacing_mm):
        raise DataFault("no-geometry", "a spacing is not above 0 mm")
    # At least one voxel is left: the whole axis.
    factors = [max(old / new, 1 / n) for n, old, new in zip(shape, spacing_mm, new_spacing_mm, strict=True)]
    sizes = [round(min(n * factor, 2**62)) for n, factor in zip(shape, factors, strict=True)]
    _check_voxels(sizes)
    return [
        ResampledAxis(n, m, f, antialias and f < 1) for n, m, f in zip(shape, sizes, factors, strict=True)
    ]


def resampled_affine(
    affine: NDArray[np.float64], spacing_mm: tuple[float, ...], new_spacing_mm: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return the affine (4, 4) from (column, row, slice, 1) of the new grid to mm; spacings as in `resample`.

    The grids share the first edge, so the first centre moves by half the difference of the spacings.
    """
    steps = np.array([new / old for old, new in zip(spacing_mm, new_spacing_mm, strict=True)])[::-1]
    change = np.diag([*steps, 1.0])
    change[:3, 3] = (steps - 1) / 2
    return affine @ change


def crop_or_pad(volume: NDArray[Any], size: tuple[int, int, int], fill: float) -> NDArray[Any]:
    """Return a volume of `size` (slices, rows, columns) and the same type: its middle, surrounded by `fill`.

    Where a difference is odd, the far side is cropped or padded by one more; cropping undoes padding exactly.

    >>> crop_or_pad(np.array([[[1, 2, 3]]]), (1, 1, 6), 0)
    array([[[0, 1, 2, 3, 0, 0]]])
    """
    if min(size) < 1:
        raise UserFault(f"size is {size}: give at least one voxel along each axis")
    _check_voxels(size)
    result = np.full(size, fill, volume.dtype)
    pairs = list(zip(volume.shape, size, strict=True))
    source = tuple(slice(max(0, (n - m) // 2), max(0, (n - m) // 2) + m) for n, m in pairs)
    target = tuple(slice(max(0, (m - n) // 2), max(0, (m - n) // 2) + n) for n, m in pairs)
    result[target] = volume[source]
    return result


def _check_voxels(sizes: Sequence[int]) -> None:
    if prod(sizes) > MAX_VOXELS:
        shape = " x ".join(map(str, sizes))
        raise DataFault("too-large", f"{shape} voxels would be made, the limit is {MAX_VOXELS}")


def _plane_resizer(rows: ResampledAxis, columns: ResampledAxis) -> Callable[[Volume, Volume], object]:
    """Return the function that writes an image (rows, columns), resampled, into one of the new size."""
    if rows.factor == columns.factor == 1:
        return lambda image, out: np.copyto(out, image)
    # OpenCV copies where no size changes, even if the spacing does. Its area kernel is slower than a sparse matrix
    # and drops overlaps below a thousandth of a pixel, so that a mean can be off by a level.
    if rows.area or columns.area or (rows.size, columns.size) == (rows.length, columns.length):
        down, across = rows.matrix(), columns.matrix()
        return lambda image, out: cv2.transpose(across @ cv2.transpose(down @ image), out)
    return lambda image, out: cv2.resize(
        image, None, out, fx=columns.factor, fy=rows.factor, interpolation=cv2.INTER_LINEAR
    )
