"""Contours as areas of pixels: the centres that lie inside, by even-odd, so that a contour in a contour is a hole."""

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.limits import check_limit

CROSSINGS = 2**24
"""The most crossings of a contour with rows of pixels: 64 times around an image of 65,535 rows, edge by edge."""
SAME_PIXELS = 0.01
"""Points nearer than this are one: contours that were copied were often rounded again."""

Points = NDArray[np.float64]
"""(n, 2): column and row of each point, in pixels from the centre of the first."""


def inside_contours(contours: list[Points], rows: int, columns: int) -> NDArray[np.bool_]:
    """Return the mask (rows, columns) of the pixels whose centres lie inside of an odd number of contours.

    A contour that is there twice counts once (rt-utils leaves a ring of it). Raises DataFault "too-large".

    >>> square = np.array([[-0.5, -0.5], [2.5, -0.5], [2.5, 2.5], [-0.5, 2.5]])
    >>> inside_contours([square, square / 3 + 2 / 3], 3, 3).astype(int)
    array([[1, 1, 1],
           [1, 0, 1],
           [1, 1, 1]])
    """
    crossings = np.zeros((rows, columns + 1), np.uint8)
    for points in distinct(contours):
        _toggle(crossings, points)
    parity = np.bitwise_xor.accumulate(crossings, axis=1)[:, :columns]
    return np.asarray(parity, np.bool_)


def distinct(contours: list[Points]) -> list[Points]:
    """Return contours without those whose points are those of another one, from wherever and whichever way they run."""
    different: dict[bytes, Points] = {}
    for points in contours:
        key = np.unique(np.rint(points / SAME_PIXELS).astype(np.int64), axis=0).tobytes()
        different.setdefault(key, points)
    return list(different.values())


def _toggle(crossings: NDArray[np.uint8], points: Points) -> None:
    """Mark in each row the first pixel whose centre is at or behind a crossing with the contour."""
    rows, columns = crossings.shape
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    low, high = np.minimum(y, next_y), np.maximum(y, next_y)
    # Half open, so that a corner counts once; rows outside of the image are cut off before anything is allocated.
    first = np.clip(np.ceil(low), 0, rows).astype(np.int64)
    counts = np.maximum(np.clip(np.ceil(high), 0, rows).astype(np.int64) - first, 0)
    total = int(counts.sum())
    check_limit("too-large", "the number of rows that a contour crosses", total, CROSSINGS)
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (next_x[edge] - x[edge]) / (next_y[edge] - y[edge])
    place = x[edge] + (row - y[edge]) * slope
    column = np.clip(np.ceil(place), 0, columns - 1).astype(np.int64)
    np.bitwise_xor.at(crossings, (row, column), 1)
