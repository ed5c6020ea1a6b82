"""Renderings of a frame of stored values in which text, bright or faint, can be seen."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

STEP = 4
"""Step in rows and columns: every fourth pixel of every fourth row gives the range of a frame well enough."""


def as_grey(frame: NDArray[Any]) -> NDArray[np.float32]:
    """Return a frame (rows, columns) or (rows, columns, 3) as finite grey values."""
    values = frame.astype(np.float32)
    if not np.issubdtype(frame.dtype, np.integer):
        np.nan_to_num(values, copy=False, posinf=0, neginf=0)
    return values if values.ndim == 2 else np.asarray(cv2.cvtColor(values, cv2.COLOR_RGB2GRAY), np.float32)


def leveled(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture whose usual values, from the 2nd to the 98th percentile, run from 0 to 1; all from -1 to 2.

    Text at the ends of the stored range stays bright without making everything else dark.
    """
    some = grey[::STEP, ::STEP].ravel()
    ranks = [round(share * (some.size - 1)) for share in (0.02, 0.98)]
    low, high = map(float, np.partition(some, ranks)[ranks])
    least, greatest, *_ = cv2.minMaxLoc(grey)
    # On a black frame with a few letters the usual values have no range of their own.
    span = max(high - low, (greatest - least) / 16, 1e-6)
    picture = grey - np.float32(low)
    picture *= np.float32(1 / span)
    return np.clip(picture, -1, 2, out=picture)


def embossed(grey: NDArray[np.float32], across: int) -> NDArray[np.uint8]:
    """Return a picture of what differs from its surroundings of `across` pixels: letters stay, anatomy fades.

    A large bright organ would be taken for one large letter otherwise, and swallow the text on it.
    """
    above = grey - cv2.blur(grey, (across, across))
    usual = max(float(np.percentile(np.abs(above), 98)), 1e-6)
    return np.asarray(np.clip(128 + above * np.float32(80 / usual), 0, 255), np.uint8)
