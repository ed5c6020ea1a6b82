"""Grey levels of pictures (PNG, JPEG, TIFF): upright orientation, luma of colours, and the window of all levels."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.image.window import Voi, Window

Grey = NDArray[Any]

ORIENTATION = 0x0112
"""The tag of EXIF and of TIFF 6.0 for the orientation of rows and columns."""

UPRIGHT: Mapping[int, Callable[[Grey], Grey]] = {
    2: lambda grey: grey[:, ::-1],
    3: lambda grey: grey[::-1, ::-1],
    4: lambda grey: grey[::-1],
    5: lambda grey: grey.T,
    6: lambda grey: grey.T[:, ::-1],
    7: lambda grey: grey.T[::-1, ::-1],
    8: lambda grey: grey.T[::-1],
}
"""Orientation -> the turn that makes it 1: first row at the top, first column at the left. Other values count as 1."""

SHARES = (19595, 38470, 7471)
"""Red, green and blue in luma, ITU-R BT.601, in 65536ths: the same sums as Pillow's, so the same levels."""


def upright(grey: Grey, orientation: object) -> Grey:
    """Return (rows, columns) with the first row at the top and the first column at the left."""
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return np.ascontiguousarray(turn(grey) if turn else grey)


def luma(colour: Grey) -> Grey:
    """Return the grey levels of (rows, columns, 3 or more) unsigned samples, in their own type.

    >>> luma(np.array([[[255, 0, 0], [9, 9, 9]]], np.uint8))
    array([[76,  9]], dtype=uint8)
    """
    total = np.full(colour.shape[:2], 0x8000, np.uint64)
    for sample, share in enumerate(SHARES):
        total += colour[..., sample].astype(np.uint64) * np.uint64(share)
    return (total >> np.uint64(16)).astype(colour.dtype)


def full_range(dtype: np.dtype[Any], bits: int) -> tuple[Voi, ...]:
    """Return the window from the lowest to the highest integer of so many bits; floating-point numbers have none.

    >>> full_range(np.dtype(np.uint16), 12)[0].bounds, full_range(np.dtype(np.int16), 16)[0].bounds
    ((0.0, 4095.0), (-32768.0, 32767.0))
    """
    if dtype.kind not in "ui":
        return ()
    return (Window(center=0 if dtype.kind == "i" else 2 ** (bits - 1), width=2**bits),)
