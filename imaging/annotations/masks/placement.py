"""Placement of a mask's grid on that of its image: by where both lie in the patient, never by the order of indices."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.source_grid import Affine, SourceGrid

OFF_GRID = 0.25
"""How far a corner of the mask may be from a corner of a pixel, in pixels: positions are written with few decimals."""

Stored = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Axes of a mask on those of an image: `axes` are the mask's (slices, rows, columns) in the order of the image's.

    `flips` are those that run the other way, `first` is the slice of the image in which the first slice of the mask
    comes to lie; it may be outside of the image.
    """

    axes: tuple[int, int, int]
    flips: tuple[int, ...]
    first: int

    def turned(self, stored: Stored) -> Stored:
        """Return values (slices, rows, columns) in the order of the image's axes."""
        return np.flip(stored.transpose(self.axes), self.flips)


def placement(size: tuple[int, int, int], affine: Affine, grid: SourceGrid) -> Placement | None:
    """Return how a mask of `size` (slices, rows, columns) lies on an image whose affine is known.

    None where it lies on another grid: turned, of another spacing, between pixels, or of other rows or columns. Where
    one of the two is a single slice, the distance of slices is that of the other.
    """
    assert grid.affine is not None
    own, target = affine.copy(), grid.affine.copy()
    if size[0] == 1:
        own[:3, 2] = target[:3, 2]
    elif grid.size[0] == 1:
        along = target[:3, 2] @ own[:3, :3] / np.linalg.norm(own[:3, :3], axis=0)
        nearest = int(np.abs(along).argmax())
        target[:3, 2] = own[:3, nearest] * np.sign(along[nearest])
    change = np.linalg.inv(target) @ own
    if not np.isfinite(change).all():
        return None
    turn, shift = np.rint(change[:3, :3]), np.rint(change[:3, 3])
    steps = np.abs(turn)
    if steps.max() != 1 or (steps.sum(axis=0) != 1).any() or (steps.sum(axis=1) != 1).any():
        return None
    # The corners, in the order of columns, rows and slices.
    corners = np.array([*product(*((0, n - 1) for n in reversed(size)))])
    off = corners @ (change[:3, :3] - turn).T + (change[:3, 3] - shift)
    if np.abs(off).max() > OFF_GRID:
        return None
    source = steps.argmax(axis=1)
    counts = np.array(size)[::-1][source]
    backwards = turn[np.arange(3), source] < 0
    first = shift - np.where(backwards, counts - 1, 0)
    columns, rows, _ = counts
    if (rows, columns) != grid.size[1:] or first[:2].any():
        return None
    axes = (2 - int(source[2]), 2 - int(source[1]), 2 - int(source[0]))
    return Placement(axes, tuple(2 - int(at) for at in np.flatnonzero(backwards)), int(first[2]))


def aligned(stored: Stored, affine: Affine, grid: SourceGrid) -> Stored:
    """Return the values of a mask (slices, rows, columns) at the pixels of an image: (grid.shape).

    Raises DataFault "mask-grid" where it lies on another grid, or does not reach all slices, and "no-geometry" where
    the image does not say where it lies.
    """
    if grid.affine is None:
        raise DataFault("no-geometry", "the image does not say where it lies, so no mask can be put on it")
    slices, rows, columns = stored.shape
    place = placement((slices, rows, columns), affine, grid)
    if place is None:
        raise other_grid((slices, rows, columns), grid)
    turned, start = place.turned(stored), -place.first
    if start < 0 or start + grid.size[0] > len(turned):
        raise DataFault("mask-grid", f"the mask does not reach all {grid.size[0]} slices of its image")
    return turned[start : start + grid.size[0]].reshape(grid.shape)


def other_grid(size: tuple[int, int, int], grid: SourceGrid) -> DataFault:
    """Return the fault of a mask on another grid than its image, with the size of both."""
    sizes = [" x ".join(map(str, one)) for one in (size, grid.size)]
    return DataFault(
        "mask-grid",
        f"the mask ({sizes[0]}) lies on another grid than its image ({sizes[1]}): other sizes, spacing, orientation or "
        "positions; resample it onto the image",
    )
