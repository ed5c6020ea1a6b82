"""Sliding window: masks of images and volumes that are larger than a model's grid, patch by patch.

Patches overlap, and each counts most at its middle, by a Gaussian, for a network sees least at a border. What is ready
is handed out in slabs of the first axis, so that memory holds one patch's depth of the image and a batch, whatever the
number of slices. All is numpy; the network is any function of patches.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault

SIGMA = 0.125
"""Width of the Gaussian, in sides of a patch, and the least weight: as nnU-Net and MONAI have them."""
LEAST_WEIGHT = 1e-3
OVERLAP = 0.5
"""Share of a patch that the next one covers again."""
BATCH_VALUES = 1 << 20
"""Pixels in a call of the network: what it makes of them takes many times as much."""

Values = NDArray[np.float32]
Network = Callable[[Values], Values]
"""Maps patches (n, [slices,] rows, columns) to probabilities (n, classes, [slices,] rows, columns)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchGrid:
    """Overlapping patches of an image: their shape, which the network takes, and what each covers again of the next.

    `batch` is how many are given to the network at once (None: as BATCH_VALUES allows), and `workers` how many calls
    are made at the same time, from threads of their own. Raises UserFault for an overlap outside of 0 to 0.9.
    """

    patch: tuple[int, ...]
    overlap: float = OVERLAP
    batch: int | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.9:
            raise UserFault(f"patches overlap by {self.overlap:g} of their sides: 0 to 0.9 is possible")

    def check(self, image: NDArray[np.generic]) -> None:
        """Raise UserFault for an image of other dimensions."""
        if len(self.patch) != image.ndim or image.size == 0:
            raise UserFault(
                f"an image of shape {image.shape} needs a patch of {image.ndim} sides, got {self.patch}"
            )


def sliding_window(image: NDArray[np.generic], network: Network, grid: PatchGrid) -> Values:
    """Return the probabilities (classes, [slices,] rows, columns) of an image ([slices,] rows, columns).

    An image that is smaller than a patch along an axis is continued by its edge. Raises UserFault for a patch of other
    dimensions, or probabilities that are no numbers.
    """
    return np.concatenate(list(slabs(image, network, grid)), axis=1)


def sliding_window_mask(image: NDArray[np.generic], network: Network, grid: PatchGrid) -> NDArray[np.uint8]:
    """Return the most probable class of each pixel, as a mask of the image's shape; as `sliding_window`.

    Probabilities of all classes are never held for more than a slab.
    """
    return np.concatenate([one.argmax(axis=0).astype(np.uint8) for one in slabs(image, network, grid)])


def slabs(image: NDArray[np.generic], network: Network, grid: PatchGrid) -> Iterator[Values]:
    """Yield the probabilities (classes, some of the first axis, ...) in the order of the first axis."""
    grid.check(image)
    patch = grid.patch
    padded = _padded(image, patch)
    weight = gaussian(patch)
    starts = [_starts(size, side, grid.overlap) for size, side in zip(padded.shape, patch, strict=True)]
    margins = [(size - own) // 2 for size, own in zip(padded.shape, image.shape, strict=True)]
    inner = tuple(slice(m, m + own) for m, own in zip(margins[1:], image.shape[1:], strict=True))
    batch = grid.batch or max(1, BATCH_VALUES // math.prod(patch))
    total, weights = None, np.zeros((patch[0], *padded.shape[1:]), np.float32)
    corners = [_box(corner, patch[1:]) for corner in product(*starts[1:])]
    groups = [corners[begin : begin + batch] for begin in range(0, len(corners), batch)]
    for row, first in enumerate(starts[0]):
        layer = padded[first : first + patch[0]]
        for begin in range(0, len(groups), grid.workers):
            some = groups[begin : begin + grid.workers]
            batches = [np.stack([layer[:, *place] for place in group]) for group in some]
            for group, given in zip(some, _called(network, batches), strict=True):
                _check(given, patch)
                if total is None:
                    total = np.zeros((given.shape[1], *weights.shape), np.float32)
                for place, one in zip(group, given, strict=True):
                    total[:, :, *place] += one * weight
                    weights[:, *place] += weight
        assert total is not None
        # No later patch reaches what lies before the start of the next one.
        done = (starts[0][row + 1] if row + 1 < len(starts[0]) else first + patch[0]) - first
        shown = slice(max(0, margins[0] - first), min(done, margins[0] + image.shape[0] - first))
        if shown.start < shown.stop:
            yield np.asarray(total[:, shown, *inner] / weights[shown, *inner], np.float32)
        for sums in (total, weights[None]):
            sums[:, : patch[0] - done] = sums[:, done:]
            sums[:, patch[0] - done :] = 0


def gaussian(patch: Sequence[int]) -> Values:
    """Return the weight of each pixel of a patch: 1 in the middle, and never less than a thousandth.

    >>> gaussian((1, 3)).round(3)
    array([[0.029, 1.   , 0.029]], dtype=float32)
    """
    weight = np.ones((), np.float64)
    for side in patch:
        distance = np.arange(side) - (side - 1) / 2
        weight = weight[..., None] * np.exp(-((distance / (SIGMA * side)) ** 2) / 2)
    return np.maximum(weight, LEAST_WEIGHT).astype(np.float32)


def _starts(size: int, side: int, overlap: float) -> list[int]:
    """Return where patches begin along an axis; the last one ends with the image.

    >>> _starts(10, 4, 0.5), _starts(4, 4, 0.5)
    ([0, 2, 4, 6], [0])
    """
    step = max(1, int(side * (1 - overlap)))
    return [min(begin, size - side) for begin in range(0, size - side + step, step)]


def _padded(image: NDArray[np.generic], patch: Sequence[int]) -> NDArray[np.generic]:
    missing = [max(0, side - size) for size, side in zip(image.shape, patch, strict=True)]
    if not any(missing):
        return image
    return np.pad(image, [(one // 2, one - one // 2) for one in missing], mode="edge")


def _box(corner: Sequence[int], sides: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(begin, begin + side) for begin, side in zip(corner, sides, strict=True))


def _called(network: Network, batches: Sequence[NDArray[np.generic]]) -> list[Values]:
    """Return what the network gives for each batch, each in a thread where there are several."""
    floats = [one.astype(np.float32, copy=False) for one in batches]
    if len(floats) == 1:
        return [network(floats[0])]
    with ThreadPoolExecutor(len(floats)) as pool:
        return list(pool.map(network, floats))


def _check(given: Values, patch: Sequence[int]) -> None:
    if given.ndim != len(patch) + 2 or given.shape[2:] != tuple(patch):
        raise UserFault(
            f"the network gave {given.shape} for patches of {tuple(patch)}: it must give (patches, classes, "
            f"{', '.join(map(str, patch))})"
        )
    # A sum is far cheaper than a look at each, and no number is lost in it.
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(given.sum())
    if not finite:
        raise UserFault("the network gave a probability that is no number: its training diverged")
