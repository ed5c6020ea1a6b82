"""Masks between the grid of a source image and the model's grid, by the crop, pad and scale of `prepare`.

One description of each axis serves both directions: the edges of the model's pixels, in pixels of the source. A pixel
of either grid takes the class that covers most of it. Of equal shares a class wins over the background and the lower
number over the higher one; unknown wins over all, so that what is unknown stays so. What is outside of the source, or
of what the model sees of it, is background.

Class numbers come back as blocks of the model's pixels, their edges at most half of such a pixel off; probabilities are
interpolated, and give the edges of smooth shapes within half a pixel of the source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.source_grid import Affine, SourceGrid
from imaging.preprocess.area import overlaps, square_margin
from imaging.preprocess.resample import axes
from imaging.preprocess.slice import square_sides
from imaging.preprocess.spec import PreprocessSpec

BACKGROUND, UNKNOWN = 0, 255
"""Numbers of pixels of no class, and of pixels of which nobody has said what they are."""

TIE = 1e-5
"""Shares that differ by less are equal: they are sums in single precision."""
STRIP_PIXELS = 2**21
"""Pixels of the result that are worked on at a time, 8 MiB in single precision."""

Mask = NDArray[np.uint8]
Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ModelAxis:
    """One axis of the model's grid: pixel i covers [edges[i], edges[i + 1]) of the `length` pixels of the source.

    All are `step` wide but the last that is on the source, whose end is moved to that of the source where nothing is
    cropped there: the number of voxels of another spacing is rounded.
    """

    length: int
    step: float
    edges: NDArray[np.float64]

    def shares(self) -> NDArray[np.float64]:
        """Return how much of source pixel j lies in the model's pixel i: (size, length)."""
        pixels = np.arange(self.length)[None]
        return np.asarray(overlaps(self.edges[:-1, None], self.edges[1:, None], pixels), np.float64)

    def to_model(self) -> Matrix:
        """Return the matrix (size, length) from shares of the source's pixels to those of the model's."""
        return np.asarray(self.shares() / np.diff(self.edges)[:, None], np.float32)

    def to_source(self) -> Matrix:
        """Return the matrix (length, size) from shares of the model's pixels to those of the source's."""
        return np.ascontiguousarray(self.shares().T, np.float32)

    def interpolated(self) -> Matrix:
        """Return the matrix (length, size) that interpolates values at the centres of the model's pixels.

        Where these are finer than the source's, it averages. Rows of pixels that the model does not see are zero.
        """
        if self.step < 1:
            return self.to_source()
        used = np.flatnonzero((self.edges[1:] > 0) & (self.edges[:-1] < self.length))
        centres, at = (self.edges[used] + self.edges[used + 1]) / 2, np.arange(self.length) + 0.5
        place = np.interp(at, centres, np.arange(len(used)))
        low = np.minimum(place.astype(np.intp), max(len(used) - 2, 0))
        high, share = np.minimum(low + 1, len(used) - 1), place - low
        matrix, rows = np.zeros((self.length, len(self.edges) - 1), np.float32), np.arange(self.length)
        np.add.at(matrix, (rows, used[low]), 1 - share)
        np.add.at(matrix, (rows, used[high]), share)
        matrix[(at < self.edges[0]) | (at > self.edges[-1])] = 0
        return matrix


Axes = tuple[ModelAxis, ModelAxis, ModelAxis]


def model_axes(grid: SourceGrid, spec: PreprocessSpec) -> Axes:
    """Return the axes of slices, rows and columns by which `prepare` or `prepare_volume` read an image of this grid.

    Raises DataFault "no-geometry" where the spec asks for a spacing and the grid has none.
    """
    return _axes(grid.shape, grid.spacing, spec)


@lru_cache(64)
def _axes(shape: tuple[int, ...], spacing: tuple[float, ...] | None, spec: PreprocessSpec) -> Axes:
    slices, rows, columns = (1, *shape)[-3:]
    if spec.kind == "volume" and spec.spacing_mm is not None:
        if spacing is None or len(spacing) != 3:
            raise DataFault(
                "no-geometry", "the spacing of the volume is not known, and spacing_mm asks for one"
            )
        sizes = (spec.slices, spec.size_px, spec.size_px)
        pairs = zip((slices, rows, columns), spacing, spec.spacing_mm, sizes, strict=True)
        down, along, across = (_cropped(*one) for one in pairs)
        return down, along, across
    size = spec.size_px
    planes = spec.slices if spec.kind == "volume" else 1
    sides = square_sides(rows, columns, None if spacing is None else spacing[-2:])
    along, across = (
        _even(n, side / size, -square_margin(n, side), size)
        for n, side in zip((rows, columns), sides, strict=True)
    )
    return _even(slices, slices / planes, 0.0, planes), along, across


def _even(length: int, step: float, start: float, size: int) -> ModelAxis:
    return ModelAxis(length, step, start + step * np.arange(size + 1, dtype=np.float64))


def _cropped(length: int, spacing: float, new_spacing: float, size: int) -> ModelAxis:
    (axis,) = axes((length,), (spacing,), (new_spacing,))
    # As `crop_or_pad` counts.
    first = max(0, (axis.size - size) // 2) - max(0, (size - axis.size) // 2)
    even = _even(length, 1 / axis.factor, first / axis.factor, size)
    if axis.size - first <= size:
        even.edges[axis.size - first] = length
    return even


def model_affine(grid: SourceGrid, spec: PreprocessSpec) -> Affine | None:
    """Return the affine (4, 4) of the model's grid, from (column, row, slice, 1) to mm; None where it is not known."""
    if grid.affine is None:
        return None
    change = np.eye(4)
    for at, axis in enumerate(reversed(model_axes(grid, spec))):
        change[at, at], change[at, 3] = axis.step, axis.edges[0] + axis.step / 2 - 0.5
    return grid.affine @ change


def mask_to_model(mask: Mask, grid: SourceGrid, spec: PreprocessSpec) -> Mask:
    """Return the class numbers (spec.shape) of a mask on the source's grid.

    Raises DataFault "mask-grid" where it has another size.
    """
    if mask.shape != grid.shape:
        sizes = [" x ".join(map(str, shape)) for shape in (mask.shape, grid.shape)]
        raise DataFault("mask-grid", f"the mask has {sizes[0]} pixels, its image {sizes[1]}")
    matrices = [axis.to_model() for axis in model_axes(grid, spec)]
    return _majority(mask.reshape(grid.size), matrices).reshape(spec.shape)


def mask_to_source(mask: Mask, grid: SourceGrid, spec: PreprocessSpec) -> Mask:
    """Return the class numbers (grid.shape) of a mask (spec.shape) on the model's grid."""
    matrices = [axis.to_source() for axis in model_axes(grid, spec)]
    return _majority(mask.reshape((1, *spec.shape)[-3:]), matrices).reshape(grid.shape)


def probabilities_to_source(
    probabilities: NDArray[np.float32], grid: SourceGrid, spec: PreprocessSpec
) -> Mask:
    """Return the most probable classes (grid.shape) of probabilities (classes, *spec.shape) on the model's grid.

    Class 0 is the background. Of equal probabilities the lower number wins.
    """
    planes = probabilities.reshape((len(probabilities), *(1, *spec.shape)[-3:]))
    matrices = [axis.interpolated() for axis in model_axes(grid, spec)]
    result = np.zeros(grid.size, np.uint8)
    seen = [matrix.sum(axis=1) for matrix in matrices]
    for number, rows in _strips(result):
        taps = np.flatnonzero(matrices[0][number])
        if not len(taps):
            continue
        best = np.zeros(result[number, rows].shape, np.float32)
        # What the model does not see is background.
        unseen = 1 - seen[0][number] * np.outer(seen[1][rows], seen[2])
        for value, volume in enumerate(planes):
            plane = np.tensordot(matrices[0][number, taps], volume[taps], axes=1)
            shares = matrices[1][rows] @ plane @ matrices[2].T + (unseen if value == BACKGROUND else 0)
            if value == BACKGROUND:
                best = shares
                continue
            better = shares > best
            best[better] = shares[better]
            result[number, rows][better] = value
    return result.reshape(grid.shape)


def _majority(mask: Mask, matrices: list[Matrix]) -> Mask:
    """Return the class with the largest share in each pixel of the other grid; both are (slices, rows, columns)."""
    result = np.zeros([len(matrix) for matrix in matrices], np.uint8)
    for number, rows in _strips(result):
        taps, sources = np.flatnonzero(matrices[0][number]), np.flatnonzero(matrices[1][rows].any(axis=0))
        if not len(taps) or not len(sources):
            continue
        near = slice(sources[0], sources[-1] + 1)
        part, down = mask[taps, near], matrices[1][rows, near]
        best, background = None, np.ones(result[number, rows].shape, np.float32)
        chosen = result[number, rows]
        for value in np.flatnonzero(np.bincount(part.ravel(), minlength=256)):
            if value == BACKGROUND:
                continue
            plane = np.tensordot(matrices[0][number, taps], (part == value).astype(np.float32), axes=1)
            shares = down @ plane @ matrices[2].T
            background -= shares
            # Unknown comes last, and wins where the others are not larger.
            least = -TIE if value == UNKNOWN else TIE
            better = shares > (TIE if best is None else np.maximum(best + least, TIE))
            best = shares if best is None else np.maximum(best, shares)
            chosen[better] = value
        if best is not None:
            chosen[background > best + TIE] = BACKGROUND
    return result


def _strips(result: Mask) -> Iterator[tuple[int, slice]]:
    """Yield the slices of a mask, in strips of rows that bound the memory of what is computed at a time."""
    slices, rows, columns = result.shape
    step = max(1, STRIP_PIXELS // columns)
    for number in range(slices):
        for start in range(0, rows, step):
            yield number, slice(start, min(start + step, rows))
