"""Renderings of a frame of stored values in which text, bright or faint, can be seen."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

STEP = 4
"""Step in rows and columns: every fourth pixel of every fourth row gives the range of a frame well enough."""
WIDER = 4
"""Times that the range of a frame is as wide as that of its usual values, from which on it is searched compressed."""
FARTHEST, NO_NUMBER = 16, 24
"""Ends of a compressed picture: sixteen is four million usual distances. Brighter is only what is no number."""
LARGEST = float(np.finfo(np.float32).max)


def greys(frame: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """Yield a frame as grey values, and compressed too where a few values, or padding, would hide all others."""
    yield as_grey(frame)
    second = compressed(frame)
    if second is not None:
        yield second


def as_grey(frame: NDArray[Any]) -> NDArray[np.float32]:
    """Return a frame (rows, columns) or (rows, columns, 3) as finite grey values."""
    with np.errstate(over="ignore"):
        values = frame.astype(np.float32)
    if not np.issubdtype(frame.dtype, np.integer):
        np.nan_to_num(values, copy=False, posinf=0, neginf=0)
    return values if values.ndim == 2 else np.asarray(cv2.cvtColor(values, cv2.COLOR_RGB2GRAY), np.float32)


def compressed(frame: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return a frame as the inverse hyperbolic sine of its distances from the middle; None where it hides nothing.

    Near the middle it is linear, far away logarithmic: one pixel of 65535, or padding of -32768, leaves text of 250 on
    100 in sight. Differences that float32 cannot hold stay too. What is no number is brighter than all others.
    """
    values = frame if frame.ndim == 2 else as_grey(frame)
    # Sorted as they are: integers of 16 bits take a tenth of the time of floating-point numbers, and bytes as much only
    # by the stable way, which counts digits.
    some = np.sort(values[::STEP, ::STEP], axis=None, kind="stable" if values.itemsize == 1 else "quicksort")
    least, greatest = float(values.min()), float(values.max())
    are_finite = abs(least) < LARGEST and abs(greatest) < LARGEST
    if not are_finite:
        finite = values[np.isfinite(values)]
        if not finite.size:
            return None
        least, greatest, some = float(finite.min()), float(finite.max()), some[np.isfinite(some)]
    # Padding and the hottest pixel are one value each, the least or the greatest.
    usual = some[np.searchsorted(some, least, "right") : np.searchsorted(some, greatest, "left")]
    if are_finite and not _hides(some, usual, least, greatest):
        return None
    usual = (usual if usual.size else some).astype(np.float64)
    middle = float(np.median(usual)) if usual.size else least
    distances = np.abs(usual - middle)
    distances = distances[distances > 0]
    with np.errstate(over="ignore", invalid="ignore"):
        picture = values.astype(np.float64) - middle
        picture /= float(np.median(distances)) if distances.size else 1.0
    picture = np.clip(np.arcsinh(picture), -FARTHEST, FARTHEST)
    picture[np.isnan(picture)] = NO_NUMBER
    return picture.astype(np.float32)


def _hides(some: NDArray[Any], usual: NDArray[Any], least: float, greatest: float) -> bool:
    """Return whether the range that `leveled` takes, or a step of float32, hides the usual values; all are sorted."""
    if least == greatest:
        return False
    (low, high), (usual_low, usual_high) = _ends(some), _ends(usual) if usual.size else (least, greatest)
    steps = 16 * float(np.spacing(np.float32(max(-least, greatest))))
    width = usual_high - usual_low
    return _span(low, high, least, greatest) > WIDER * width or width < steps


def leveled(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture whose usual values, from the 2nd to the 98th percentile, run from 0 to 1; all from -1 to 2.

    Text at the ends of the stored range stays bright without making everything else dark.
    """
    # numpy sorts them in a third of the time that it takes to find two of them.
    low, high = _ends(np.sort(grey[::STEP, ::STEP], axis=None))
    least, greatest, *_ = cv2.minMaxLoc(grey)
    span = _span(low, high, least, greatest)
    picture = grey - np.float32(low)
    picture *= np.float32(1 / span)
    return np.clip(picture, -1, 2, out=picture)


def _ends(some: NDArray[Any]) -> tuple[float, float]:
    """Return the 2nd and the 98th percentile of sorted values."""
    low, high = (float(some[round(share * (some.size - 1))]) for share in (0.02, 0.98))
    return low, high


def _span(low: float, high: float, least: float, greatest: float) -> float:
    # On a black frame with a few letters the usual values have no range of their own.
    return max(high - low, (greatest - least) / 16, 1e-6)


def embossed(grey: NDArray[np.float32], across: int) -> NDArray[np.uint8]:
    """Return a picture of what differs from its surroundings of `across` pixels: letters stay, anatomy fades.

    A large bright organ would be taken for one large letter otherwise, and swallow the text on it.
    """
    above = grey - cv2.blur(grey, (across, across))
    usual = max(float(np.percentile(np.abs(above), 98)), 1e-6)
    return np.asarray(np.clip(128 + above * np.float32(80 / usual), 0, 255), np.uint8)
