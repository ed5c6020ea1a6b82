"""Area-weighted averages: the weights of pixels in larger ones, and the average of a square image, clipped before."""

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Clipper = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[np.float32]]

STRIP_ROWS, WHOLE_RATIO_STRIP_ROWS = 128, 512
"""Rows that are clipped, converted and averaged at a time: few enough to stay in the cache of a core. At whole ratios
the average takes so little time that more calls would cost more than the cache saves."""


def area_average(
    values: NDArray[Any], size: int, lower: float = -np.inf, upper: float = np.inf
) -> NDArray[np.float32]:
    """Return the average (size, size) of a square image (side, side), clipped to lower..upper; size <= side.

    Each output is the mean of the area that it covers, including fractions of pixels.

    >>> area_average(np.array([[0, 2, 9, 9], [2, 4, 9, 9], [0, 0, 1, 1], [0, 0, 1, 1]]), 2, 0, 5)
    array([[2., 5.],
           [0., 1.]], dtype=float32)
    """
    side = len(values)
    common = math.gcd(side, size)
    block, into = side // common, size // common
    clip = _clipper(values.dtype, lower, upper)
    at_once = WHOLE_RATIO_STRIP_ROWS if into == 1 else STRIP_ROWS
    if block > at_once:
        clipped = clip(values, np.empty(values.shape, np.float32))
        return np.asarray(cv2.resize(clipped, (size, size), interpolation=cv2.INTER_AREA))
    rows = min(block * (at_once // block), side)
    strip, small = np.empty((rows, side), np.float32), np.empty((size, size), np.float32)
    weights = _block_weights(block, into)
    for start in range(0, side, rows):
        part = values[start : start + rows]
        clipped = clip(part, strip[: len(part)])
        target = small[start * into // block : (start + len(part)) * into // block]
        if into == 1:
            cv2.resize(clipped, target.shape[::-1], dst=target, interpolation=cv2.INTER_AREA)
        else:
            _average_blocks(clipped, weights, target)
    return small


def _average_blocks(
    values: NDArray[np.float32], weights: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write the averages of blocks of (block, block) pixels, (into, into) each: twice as fast as OpenCV's resize."""
    into, block = weights.shape
    across = values.reshape(-1, block) @ weights.T
    np.matmul(weights, across.reshape(-1, block, out.shape[1]), out=out.reshape(-1, into, out.shape[1]))


@cache
def _block_weights(block: int, into: int) -> NDArray[np.float32]:
    return area_weights(block, block, into)


def area_weights(length: int, side: float, size: int) -> NDArray[np.float32]:
    """Return (size, length) weights that average `length` pixels, centred in a square of `side`, into `size`.

    Row i holds the share of pixel j in output i; the area outside of the image has no weight.

    >>> area_weights(4, 4, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]], dtype=float32)
    """
    step = side / size
    start = np.arange(size)[:, None] * step
    weights = overlaps(start, start + step, np.arange(length)[None, :] + square_margin(length, side)) / step
    return np.asarray(weights, np.float32)


def square_margin(length: int, side: float) -> float:
    """Return how many pixels of a square of `side` are before an image of `length` that is centred in it.

    Whole pixels where they are square, as the portable model counts.
    """
    return (side - length) // 2 if side == int(side) else (side - length) / 2


def overlaps(start: NDArray[Any], end: NDArray[Any], pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Return how much of each pixel [p, p + 1) is between start and end; the arrays are broadcast."""
    shares: NDArray[np.float64] = np.clip(np.minimum(end, pixels + 1) - np.maximum(start, pixels), 0, None)
    return shares


@lru_cache(256)
def _clipper(kind: np.dtype[Any], lower: float, upper: float) -> Clipper:
    """Return the function that writes clipped values as single precision; integers are clipped by whole bounds."""
    limits = np.iinfo(kind) if kind.kind in "iu" else None
    if limits and _whole(lower) and _whole(upper) and lower <= limits.max and upper >= limits.min:
        low, high = (kind.type(min(max(bound, limits.min), limits.max)) for bound in (lower, upper))

        def clip_integers(values: NDArray[Any], out: NDArray[np.float32]) -> NDArray[np.float32]:
            # The bounds are of the type of the values: clipped as integers, and converted a small buffer at a time.
            return values.clip(low, high, out, dtype=kind, casting="unsafe")

        return clip_integers

    def clip_floats(values: NDArray[Any], out: NDArray[np.float32]) -> NDArray[np.float32]:
        out[...] = values
        return np.clip(out, np.float32(lower), np.float32(upper), out=out)

    return clip_floats


def _whole(bound: float) -> bool:
    return math.isinf(bound) or float(bound).is_integer()
