"""Fingerprint of a prepared image: 64 bytes that differ between images, and hardly between copies of one.

Area means on a grid, their cosine transform, and of that sixteen waves from each of four rings of frequency. Each
ring has the same weight, however little of the image's contrast is in it: outlines are alike from patient to patient,
details are not. `bench.near_duplicates` has the figures that the rings and the floor were chosen by.
"""

from functools import cache

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imaging.dataset.tables.schemas import FINGERPRINT_BYTES

GRID = 16
RINGS = ((1, 16), (17, 58), (59, 123), (124, 212))
"""First and last wave of each ring, counted from the longest: 4, 8, 12 and 16 half waves across the image."""
WAVES = 16
"""Waves of a ring in the fingerprint, evenly from its first to its last."""
LENGTH = 127
"""Length of a ring's waves as a vector; the fingerprint has them around ZERO."""
ZERO = 128

FLOOR = 1024
"""A ring weaker than this, divided by the image's side, is not made longer: in a small image one grey level more or
less in each pixel would turn it. An image with fewer than `CLEAR` rings above it shows too little to be compared."""
CLEAR = 2

FINE = 64
"""Means are counted in parts of a grey level, and waves in whole numbers: so that a sum is the same in any order."""
AT_ONCE = 32
"""Images that are averaged in one call: few enough to stay in a core's own cache."""


def fingerprints(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the fingerprints (n, 64) of images (n, size, size) or volumes (n, depth, size, size).

    Brightness and contrast of the whole image make no difference. A flat image, black or grey, is evidence of
    nothing: all its bytes are `ZERO`, and `near_duplicates` pairs it with none. Of a volume, the front and the back
    half are described, with half as many waves each.
    """
    depth = images.shape[1] if images.ndim == 4 else 1
    means = _means(images.reshape(-1, *images.shape[-2:])).reshape(len(images), depth, GRID * GRID)
    parts = _halves(means) if images.ndim == 4 else means
    each = WAVES // parts.shape[1]
    waves = np.rint(np.rint(parts * FINE) @ _waves(each) / 2**14) / FINE
    by_ring = waves.reshape(len(images), parts.shape[1], len(RINGS), each).swapaxes(1, 2)
    rings = by_ring.reshape(len(images), len(RINGS), WAVES)
    strength = np.sqrt((rings**2).sum(axis=2, keepdims=True))
    floor = FLOOR / images.shape[-1]
    rings *= LENGTH / np.maximum(strength, floor)
    rings[(strength >= floor).sum(axis=(1, 2)) < CLEAR] = 0
    return (np.rint(rings) + ZERO).astype(np.uint8).reshape(len(images), FINGERPRINT_BYTES)


def flat(fingerprints: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return for each fingerprint (n, 64) whether its image shows too little to be compared."""
    return np.asarray((fingerprints == ZERO).all(axis=1))


def as_column(fingerprints: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """Return fingerprints (n, 64) as the column of a table, without a copy."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(fingerprints))]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(FINGERPRINT_BYTES), len(fingerprints), buffers)


def from_column(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return the fingerprints (n, 64) of a table's column."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, FINGERPRINT_BYTES) for chunk in column.chunks
    ]
    rows = [part[chunk.offset :][: len(chunk)] for part, chunk in zip(parts, column.chunks, strict=True)]
    return np.concatenate([np.empty((0, FINGERPRINT_BYTES), np.uint8), *rows])


def _halves(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the planes (n, depth, cells) of front and back into (n, 2, cells); the middle one is of both."""
    depth = means.shape[1]
    return np.stack([means[:, : (depth + 1) // 2].mean(axis=1), means[:, depth // 2 :].mean(axis=1)], axis=1)


def _means(planes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the area means (n, GRID, GRID) of planes (n, size, size)."""
    means = np.empty((len(planes), GRID, GRID))
    for start in range(0, len(planes), AT_ONCE):
        some = planes[start : start + AT_ONCE]
        means[start : start + AT_ONCE] = _averaged(some.reshape(-1, some.shape[2]), len(some))
    return means


def _averaged(column: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """Average images that stand in one column: OpenCV's calls cost more than a small image."""
    size = column.shape[1]
    # Halving whole numbers takes a quarter of the time, and rounds by less than others' pixels average out.
    while size % 2 == 0 and size >= 8 * GRID:
        size //= 2
        column = np.asarray(cv2.resize(column, (size, size * count), interpolation=cv2.INTER_AREA))
    small = cv2.resize(column.astype(np.float32), (GRID, GRID * count), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(count, GRID, GRID)


@cache
def _waves(each: int) -> NDArray[np.float64]:
    """Return (GRID * GRID, rings * each) waves of the cosine transform, in whole numbers of 2**14."""
    across = np.arange(GRID)
    # scipy.fft has it too, and takes a third of the time in which a worker starts.
    line = np.sqrt(2 / GRID) * np.cos(np.pi / GRID * across[:, None] * (across + 0.5))
    line[0] /= np.sqrt(2)
    every = np.kron(line, line).T
    by_length = np.argsort((across[:, None] ** 2 + across**2).ravel(), kind="stable")
    picked = [by_length[np.linspace(first, last, each).round().astype(int)] for first, last in RINGS]
    return np.asarray(np.rint(every[:, np.concatenate(picked)] * 2**14), np.float64)
