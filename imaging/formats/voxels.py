"""Owns the array of a volume: slices in modality units, what is padding in them, and gaps between them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.image import Image

PADDED = float(-(2**62))
"""Stands for padding in a volume, whose slices each pad and scale in their own way; no modality measures it."""

DRAWN_SLICES = 3
"""So many missing slices are drawn from their neighbours; a larger gap is no gap but another part of the body."""


def units(image: Image) -> NDArray[np.float32]:
    """Return modality units, with PADDED where nothing was measured."""
    mask = image.padded
    return image.values if mask is None else np.where(mask, np.float32(PADDED), image.values)


def padding_of(volume: NDArray[np.float32]) -> tuple[float, float] | None:
    """Return the range of padding, where there is any."""
    return (PADDED, PADDED) if volume.min() == PADDED else None


def fill_gaps(volume: NDArray[np.float32], places: Sequence[int]) -> None:
    """Draw missing slices from their neighbours in place; raise DataFault "bad-slice" where too many are missing."""
    for before, after in pairwise(places):
        if after - before > DRAWN_SLICES + 1:
            missing = after - before - 1
            raise DataFault(
                "bad-slice", f"{missing} slices in a row are missing, {DRAWN_SLICES} can be drawn"
            )
        for place in range(before + 1, after):
            share = np.float32((place - before) / (after - before))
            drawn = volume[before] * (1 - share) + volume[after] * share
            padded = (volume[before] == PADDED) | (volume[after] == PADDED)
            volume[place] = np.where(padded, np.float32(PADDED), drawn)
