"""Preparation of a slice: from an image to a model's input of square grey levels, and back to modality units.

The steps are the window, the inversion of MONOCHROME1, an area-weighted resize into a square, and rounding to 256
levels; with the order "resize-window" the resize comes first. The order is part of the model.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.image.image import Image
from imaging.image.window import Unusable, Voi, Window
from imaging.preprocess.area import area_average, area_weights
from imaging.preprocess.spec import LEVELS, PreprocessSpec

FAR = 1000
"""A window this many widths away from zero is moved to zero: single precision has seven digits."""
FARTHEST = 1e30
"""Windows farther from zero are not applied in stored values; single precision ends at 3e38."""

PERCENTILES = (0.5, 99.5)
SAME = 1e-6
"""Relative distance of percentiles of an image of one value: single precision has seven digits."""
NARROWEST = 1e-10
"""The same as a distance: beside the 1 in the width of a window, smaller ones drown in rounding."""

OBLONG = 4
"""Images with a larger ratio of sides get no border: weights for each side cost less."""

SQUARE = 1e-3
"""Pixels whose sides differ by less than a thousandth are square: spacings have three digits."""


def prepare(image: Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Return the grey levels (size_px, size_px) of an image (rows, columns).

    Raises DataFault "no-window" where the window is to come from the file and it has none.
    """
    return to_levels(*_scaled_levels(image, spec))


def to_levels(levels: NDArray[np.float32], scale: float = 1.0) -> NDArray[np.uint8]:
    """Return levels multiplied by `scale` and rounded to integers of 0 to 255, halves to even."""
    flat = levels.reshape(len(levels), -1)
    whole: NDArray[np.uint8] = np.asarray(cv2.convertScaleAbs(flat, None, scale), np.uint8)
    return whole.reshape(levels.shape)


def squared_levels(image: Image, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Return the grey levels (size_px, size_px) of an image before they are rounded."""
    levels, scale = _scaled_levels(image, spec)
    levels *= np.float32(scale)
    return np.clip(levels, 0, LEVELS, out=levels)


def _scaled_levels(image: Image, spec: PreprocessSpec) -> tuple[NDArray[np.float32], float]:
    """Return values (size_px, size_px), none below black, and the factor that makes grey levels of them."""
    voi = choose_voi(image, spec)
    ends = _stored_bounds(image, voi) if isinstance(voi, Window) else None
    return (_by_curve(image, voi, spec), LEVELS) if ends is None else _by_line(image, *ends, spec)


def shown_levels(image: Image, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Return the grey levels of an image (rows, columns), of the same size, before they are rounded."""
    shown = choose_voi(image, spec).show(image.values)
    if image.inverted:
        shown = 1 - shown
    mask = image.padded
    return np.asarray(shown if mask is None else np.where(mask, np.float32(0), shown)) * np.float32(LEVELS)


def choose_voi(image: Image, spec: PreprocessSpec) -> Voi:
    """Return the window of the spec, or the VOI of the file that the spec asks for; raise DataFault "no-window"."""
    if isinstance(spec.window, Window):
        return spec.window
    voi = image.vois[spec.window_number - 1] if len(image.vois) >= spec.window_number else None
    if voi is not None and not isinstance(voi, Unusable):
        return voi
    if spec.window == "auto":
        return percentile_window(image)
    offered = len(image.vois)
    cause = (
        f"number {spec.window_number} of the file's {offered} windows cannot be used: {voi.why}"
        if voi
        else f"the file offers {offered} windows, number {spec.window_number} is asked for"
    )
    raise DataFault("no-window", f"{cause}; give a fixed window in the configuration, or 'auto'")


def percentile_window(image: Image) -> Window:
    """Return the window from the 0.5th to the 99.5th percentile of the measured values of an image or volume.

    A few bright pixels, such as a label or an implant, leave it as it is; padding does not count.

    >>> percentile_window(Image(stored=np.arange(1001.0), slope=2.0)).bounds
    (10.0, 1990.0)
    """
    mask = image.padded
    measured = image.stored if mask is None else image.stored[~mask]
    if not measured.size:
        measured = image.stored
    low, high = sorted(np.percentile(measured, PERCENTILES) * image.slope + image.intercept)
    largest = max(abs(low), abs(high))
    width = high - low
    if width <= max(SAME * largest, NARROWEST):
        # An image of one value is black, also where black is the largest value (MONOCHROME1).
        width = largest or 1.0
        low = low - width if image.inverted else low
    # LINEAR has its bounds half a value further in.
    return Window(center=low + width / 2 + 0.5, width=width + 1)


def _stored_bounds(image: Image, window: Window) -> tuple[float, float] | None:
    """Return the stored values that are shown black and white; None where they are too large or the slope is 0."""
    if not image.slope:
        return None
    lower, upper = ((bound - image.intercept) / image.slope for bound in window.bounds)
    if max(abs(lower), abs(upper)) > FARTHEST:
        return None
    return (upper, lower) if image.inverted else (lower, upper)


def _by_line(
    image: Image, black: float, white: float, spec: PreprocessSpec
) -> tuple[NDArray[np.float32], float]:
    """Return the averages and their factor for a linear window, which commutes with the average of stored values."""
    clipped = spec.order == "window-resize"
    stored = _without_padding(image, black, white, clipped=clipped)
    if max(abs(black), abs(white)) > FAR * abs(white - black):
        stored, black, white = stored.astype(np.float64) - black, 0.0, white - black
    first = (min(black, white), max(black, white)) if clipped else (-np.inf, np.inf)
    small = fit(stored, spec.size_px, image.spacing_mm, black, first)
    small -= np.float32(black)
    scale = LEVELS / (white - black)
    if not clipped:
        np.clip(small, *sorted((0.0, white - black)), out=small)
    return small, scale


def _without_padding(image: Image, black: float, white: float, *, clipped: bool) -> NDArray[Any]:
    """Return the stored values with black padding; most padding is beyond black already, and is clipped later."""
    beyond = image.padding is None or all((end <= black) == (black < white) for end in image.padding)
    if image.padding is None or (beyond and clipped):
        return image.stored
    mask = image.padded
    return image.stored if mask is None else np.where(mask, np.float32(black), image.stored)


def _by_curve(image: Image, voi: Voi, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Return the averages as 0..1 for a sigmoid, a threshold or a table, which need modality units."""
    mask = image.padded

    def show(values: NDArray[np.float32]) -> NDArray[np.float32]:
        shown = voi.show(values)
        return 1 - shown if image.inverted else shown

    values = image.values
    if spec.order == "window-resize":
        values = show(values)
        if mask is not None:
            values = np.where(mask, np.float32(0), values)
        return fit(values, spec.size_px, image.spacing_mm, 0.0)
    # A curve need not have black: padding has no weight in the mean, and darkens the result by its share.
    measured = np.ones(values.shape, np.float32) if mask is None else (~mask).astype(np.float32)
    share = fit(measured, spec.size_px, image.spacing_mm, 0.0)
    mean = fit(values * measured, spec.size_px, image.spacing_mm, 0.0)
    mean /= np.maximum(share, np.float32(1e-6))
    return show(mean) * share


def fit(
    values: NDArray[Any],
    size: int,
    spacing_mm: tuple[float, ...] | None,
    fill: float,
    ends: tuple[float, float] = (-np.inf, np.inf),
) -> NDArray[np.float32]:
    """Return the average of an image clipped to `ends`: a square (size, size), centred, with its true proportions.

    The square outside of the image is `fill`.
    """
    height, width = values.shape
    down_side, across_side = square_sides(height, width, spacing_mm)
    side = max(height, width)
    # A border around 1 x 65535 pixels would be a square of 17 GB.
    if down_side == across_side and side >= size and side <= OBLONG * min(height, width):
        return area_average(_squared(values, side, fill), size, *ends)
    down = area_weights(height, down_side, size)
    across = area_weights(width, across_side, size)
    clipped = np.clip(values.astype(np.float32), np.float32(ends[0]), np.float32(ends[1])) - np.float32(fill)
    small: NDArray[np.float32] = down @ clipped @ across.T + np.float32(fill)
    return small


def square_sides(height: int, width: int, spacing_mm: tuple[float, ...] | None) -> tuple[float, float]:
    """Return the side of the square around an image: in rows, and in columns, which differ where pixels are oblong.

    >>> square_sides(4, 6, None), square_sides(4, 6, (3.0, 1.0))
    ((6.0, 6.0), (4.0, 12.0))
    """
    row, column = spacing_mm or (1.0, 1.0)
    if abs(row / column - 1) < SQUARE:
        row = column = 1.0
    extent = max(height * row, width * column)
    return extent / row, extent / column


def _squared(values: NDArray[Any], side: int, fill: float) -> NDArray[Any]:
    height, width = values.shape
    if height == width:
        return values
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side), fill, np.float32)
    square[top : top + height, left : left + width] = values
    return square


def planes(levels: NDArray[Any]) -> NDArray[Any]:
    """Return prepared images as (n, channels, size, size): one channel each, or the slices of volumes.

    >>> planes(np.zeros((2, 8, 8))).shape, planes(np.zeros((2, 5, 8, 8))).shape
    ((2, 1, 8, 8), (2, 5, 8, 8))
    """
    return levels[:, None] if levels.ndim == 3 else levels


def to_modality_units(levels: NDArray[np.uint8], window: Window) -> NDArray[np.float32]:
    """Return values in modality units from which `prepare` makes exactly these levels, as a portable model expects."""
    lower, upper = window.bounds
    return (lower + levels.astype(np.float32) * ((upper - lower) / LEVELS)).astype(np.float32)
