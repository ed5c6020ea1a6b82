"""Image or volume: its stored values, with their transforms to modality units and to grey levels."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.image.source_grid import Affine, SourceGrid
from imaging.image.window import Unusable, Voi

PADDED = float(-(2**62))
"""The value of padding where no value of the file can stand for it; no modality measures it."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """Stored values (rows, columns), or (slices, rows, columns) of a volume, with their transforms.

    `padding` is the closed range of stored values of pixels that were never measured (PS3.3 C.7.5.1.1.2);
    `spacing_mm` the distance of neighbouring pixels along each axis of `stored`, or relative where a file
    gives only the ratio; None means square pixels of unknown size. `affine` is from (column, row, slice, 1) to mm, in
    LPS, None where the file gives no position. `vois` are the VOI transforms that the file
    offers, its first choice first, each in its place.
    """

    stored: NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0
    vois: tuple[Voi | Unusable, ...] = ()
    inverted: bool = False
    padding: tuple[float, float] | None = None
    spacing_mm: tuple[float, ...] | None = None
    affine: Affine | None = None

    @property
    def grid(self) -> SourceGrid:
        """Where the pixels lie."""
        return SourceGrid(self.stored.shape, self.spacing_mm, self.affine)

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """The values in modality units (Hounsfield for CT), PS3.3 C.11.1."""
        return rescale(self.stored, self.slope, self.intercept)

    @property
    def padded(self) -> NDArray[np.bool_] | None:
        """The mask of values that are padding; None where there is none."""
        if self.padding is None:
            return None
        mask: NDArray[np.bool_] = (self.stored >= self.padding[0]) & (self.stored <= self.padding[1])
        return mask if mask.any() else None


def rescale(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    """Return stored values in the modality's units (Hounsfield for CT), PS3.3 C.11.1.

    >>> rescale(np.array([0, 1024]), 1.0, -1024.0)
    array([-1024.,     0.], dtype=float32)
    """
    if (slope, intercept) == (1, 0):
        return stored.astype(np.float32, copy=False)
    values = stored.astype(np.float32)
    values *= np.float32(slope)
    values += np.float32(intercept)
    return values
