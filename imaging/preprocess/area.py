"""Owns the area average of a square image, clipped on the way: the costly step of preparing a slice."""

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Clipper = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[np.float32]]

STRIP_ROWS, WHOLE_STRIP_ROWS = 128, 512
"""Rows that are clipped, converted and averaged at a time: few enough to stay in a core's own cache. Whole ratios
take so little time that the calls would cost more than the cache saves."""


def area_average(
    values: NDArray[Any], size: int, lower: float = -np.inf, upper: float = np.inf
) -> NDArray[np.float32]:
    """Clip a square image (side, side) to lower..upper and average it into (size, size), size <= side.

    Each output is the mean of the area that it covers, fractions of pixels included.

    >>> area_average(np.array([[0, 2, 9, 9], [2, 4, 9, 9], [0, 0, 1, 1], [0, 0, 1, 1]]), 2, 0, 5)
    array([[2., 5.],
           [0., 1.]], dtype=float32)
    """
    side = len(values)
    common = math.gcd(side, size)
    block, into = side // common, size // common
    clip = _clipper(values.dtype, lower, upper)
    at_once = WHOLE_STRIP_ROWS if into == 1 else STRIP_ROWS
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
    """Average blocks of (block, block) pixels into (into, into): twice as fast as OpenCV's fractional ratios."""
    into, block = weights.shape
    across = values.reshape(-1, block) @ weights.T
    np.matmul(weights, across.reshape(-1, block, out.shape[1]), out=out.reshape(-1, into, out.shape[1]))


@cache
def _block_weights(block: int, into: int) -> NDArray[np.float32]:
    """Return (into, block) weights: which share of each output a pixel has."""
    step = block / into
    start, pixel = np.arange(into)[:, None] * step, np.arange(block)[None, :]
    overlap = np.minimum(start + step, pixel + 1) - np.maximum(start, pixel)
    return np.asarray(np.clip(overlap, 0, None) / step, np.float32)


@lru_cache(256)
def _clipper(kind: np.dtype[Any], lower: float, upper: float) -> Clipper:
    """Return what writes clipped values as single precision: of integers with integers, where bounds are whole."""
    limits = np.iinfo(kind) if kind.kind in "iu" else None
    if limits and _whole(lower) and _whole(upper) and lower <= limits.max and upper >= limits.min:
        low, high = (kind.type(min(max(bound, limits.min), limits.max)) for bound in (lower, upper))

        def clip_integers(values: NDArray[Any], out: NDArray[np.float32]) -> NDArray[np.float32]:
            out[...] = values.clip(low, high)
            return out

        return clip_integers

    def clip_floats(values: NDArray[Any], out: NDArray[np.float32]) -> NDArray[np.float32]:
        out[...] = values
        return np.clip(out, np.float32(lower), np.float32(upper), out=out)

    return clip_floats


def _whole(bound: float) -> bool:
    return math.isinf(bound) or float(bound).is_integer()
