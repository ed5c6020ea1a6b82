"""Transforms of stored values: to modality units, and to grey levels as the file wants them shown."""

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from math import inf, isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imaging.dicom.attributes import Attributes, Value, first, text, whole
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.geometry import pixel_spacing
from imaging.dicom.lookup_tables import items_of, lut_of, palette_of
from imaging.errors import DataFault
from imaging.image.image import PADDED, Image
from imaging.image.window import Lut, Sigmoid, Threshold, Unusable, Voi, Window

RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
"""The factors of PS3.3 C.11.1, each with its default."""

NOT_FOR_DISPLAY: Mapping[str, str] = dict.fromkeys(
    (
        "1.2.840.10008.5.1.4.1.1.12.1",  # X-Ray Angiographic Image Storage
        "1.2.840.10008.5.1.4.1.1.12.2",  # X-Ray Radiofluoroscopic Image Storage
        "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane Image Storage, retired
    ),
    "PixelIntensityRelationship",
)
"""SOP class -> the attribute with which its modality LUT or rescale is not applied.

It leads from the stored values back to the intensity of the beam (PS3.3 C.8.7.1.1.2); the VOI window is one of the
stored values. dcmtk and fo-dicom leave it out for these classes, dcm4che and Weasis for the relationships LOG and DISP.
"""

PADDING: Mapping[str, tuple[str, str]] = {
    "f4": ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    "f8": ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
}
"""Type of floating-point pixels -> the keywords of the two ends of their padding."""

WINDOW = ("WindowCenter", "WindowWidth")

LARGEST = 1e30
"""Windows farther from zero are ignored; single precision ends at 3e38."""

SMALLEST = 1e-30
"""A sigmoid that is narrower is a step in single precision, which ends at 1e-38."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness, ITU-R BT.601."""


def _linear(center: float, width: float) -> Voi | None:
    half = (width - 1) / 2
    if width < 1:
        return None
    if center - 0.5 - half < center - 0.5 + half:
        return Window(center=center, width=width)
    return Threshold(center - 0.5)


def _linear_exact(center: float, width: float) -> Voi | None:
    # Converted to LINEAR, whose bounds are half a value further in.
    return _linear(center + 0.5, width + 1) if width > 0 else None


def _sigmoid(center: float, width: float) -> Voi | None:
    if width <= 0:
        return None
    return Sigmoid(center, width) if width > SMALLEST else Threshold(center)


FUNCTIONS: Mapping[str, Callable[[float, float], Voi | None]] = {
    "LINEAR": _linear,
    "LINEAR_EXACT": _linear_exact,
    "SIGMOID": _sigmoid,
}
"""VOI LUT Function (0028,1056) to the window that a center and a width make, PS3.3 C.11.2.1.2 and C.11.2.1.3."""


def file_vois(attributes: Attributes, groups: list[Dataset], *, signed: bool = False) -> list[Voi | Unusable]:
    """Return the VOI transforms that a file offers, in its order: VOI LUTs, then windows (PS3.3 C.11.2).

    One that cannot be used is `Unusable` in its place. `signed` is whether values in modality units may be negative.

    >>> header = {"WindowCenter": (0.0, 40.0), "WindowWidth": (100.0, 400.0), "VOILUTFunction": "LINEAR_EXACT"}
    >>> file_vois(header, [])
    [Window(center=0.5, width=101.0), Window(center=40.5, width=401.0)]
    """
    luts = [_voi_lut(item, signed) for item in items_of(groups, "VOILUTSequence")]
    return [*luts, *_windows(attributes)]


def _voi_lut(item: Dataset, signed: bool) -> Lut | Unusable:
    try:
        return lut_of(item, signed=signed)
    except DataFault as fault:
        return Unusable(f"{fault.detail}, in an item of VOILUTSequence")


def _windows(attributes: Attributes) -> Iterator[Voi | Unusable]:
    """Yield a window for each place of Window Center and Width, or why there is none."""
    function = text(attributes, "VOILUTFunction") or "LINEAR"
    pairs = zip_longest(*(_numbers(attributes, keyword) for keyword in WINDOW))
    for place, pair in enumerate(pairs, start=1):
        yield _window(function, place, pair)


def _window(function: str, place: int, pair: tuple[float | None, ...]) -> Voi | Unusable:
    numbers = list[float]()
    for keyword, number in zip(WINDOW, pair, strict=True):
        if number is None:
            return Unusable(f"{keyword} has no value {place}")
        if isnan(number):
            return Unusable(f"value {place} of {keyword} is empty or no number (the decimal sign is a point)")
        if abs(number) > LARGEST:
            return Unusable(f"value {place} of {keyword} is {number:g}, the limit is {LARGEST:g}")
        numbers.append(number)
    if function not in FUNCTIONS:
        return Unusable(f"VOILUTFunction is none of {', '.join(FUNCTIONS)}")
    window = FUNCTIONS[function](*numbers)
    return window or Unusable(f"value {place} of WindowWidth is {numbers[1]:g}, too small for {function}")


def _numbers(attributes: Attributes, keyword: str) -> tuple[float, ...]:
    value: Value = attributes.get(keyword, ())
    return value if isinstance(value, tuple) else ()


def grey_image(opened: DicomObject, attributes: Attributes, stored: NDArray[Any], index: int) -> Image:
    """Return a grey frame with its transforms: modality LUT or rescale, padding, VOI and MONOCHROME1."""
    # A later one may override the tables of an earlier one.
    groups = [] if opened.dataset is None else [opened.dataset, *opened.macros(index)]
    stored, padding = _padded(attributes, stored)
    slope, intercept, tables = 1.0, 0.0, list[Dataset]()
    if not text(attributes, NOT_FOR_DISPLAY.get(text(attributes, "SOPClassUID"), "")):
        tables = items_of(groups, "ModalityLUTSequence")
        if not tables:
            slope, intercept = (_factor(attributes, keyword, default) for keyword, default in RESCALE)
    signed = _lowest(attributes, stored.dtype, slope, intercept) < 0
    if tables:
        # Its entries are never negative (PS3.3 C.11.1.1.1).
        stored, padding = _look_up(stored, lut_of(tables[0], signed=signed), padding)
        signed = False
    return Image(
        stored=stored,
        slope=slope,
        intercept=intercept,
        vois=tuple(file_vois(attributes, groups, signed=signed)),
        inverted=text(attributes, "PhotometricInterpretation") == "MONOCHROME1",
        padding=padding,
        spacing_mm=_spacing(attributes),
    )


def _factor(attributes: Attributes, keyword: str, default: float) -> float:
    if keyword not in attributes:
        return default
    value = first(attributes, keyword)
    if value is None:
        raise DataFault("undecodable", f"{keyword} is not a finite number")
    return value


def _lowest(attributes: Attributes, kind: np.dtype[Any], slope: float, intercept: float) -> float:
    """Return the lowest value in modality units that so many stored bits can give; of it depends the sign of a VOI LUT.

    PS3.3 C.11.2.1.1: the first value mapped is signed if the possible range after the rescaling is.
    """
    if kind.kind == "f":
        return -inf
    bits = whole(attributes, "BitsStored", kind.itemsize * 8)
    ends = (0, 2**bits - 1) if kind.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return min(end * slope for end in ends) + intercept


def _padded(attributes: Attributes, stored: NDArray[Any]) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return stored values and the range of them that is padding (PS3.3 C.7.5.1.1.2, C.7.6.24.1 and C.7.6.25.1).

    Padding of floating-point pixels is replaced by PADDED: it may be NaN or infinite.
    """
    keywords = PADDING.get(stored.dtype.str[1:], ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    value, limit = (first(attributes, keyword) for keyword in keywords)
    if value is None:
        return stored, None
    ends = [value, value if limit is None else limit]
    if stored.dtype.kind != "f":
        return stored, (min(ends), max(ends))
    hidden = np.isnan(stored) if any(map(isnan, ends)) else np.zeros(stored.shape, np.bool_)
    numbers = [end for end in ends if not isnan(end)]
    if numbers:
        hidden |= (stored >= min(numbers)) & (stored <= max(numbers))
    return np.where(hidden, stored.dtype.type(PADDED), stored), (PADDED, PADDED)


def _look_up(
    stored: NDArray[Any], table: Lut, padding: tuple[float, float] | None
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return the entries of stored values, and the range of padding among them: -1, which is no entry."""
    entries = table.look_up(stored)
    if padding is None:
        return entries, None
    hidden = (stored >= padding[0]) & (stored <= padding[1])
    return np.where(hidden, np.int32(-1), entries.astype(np.int32)), (-1.0, -1.0)


def _spacing(attributes: Attributes) -> tuple[float, float] | None:
    spacing = pixel_spacing(attributes)
    return (spacing.row_mm, spacing.column_mm) if spacing.source else None


def colour_image(opened: DicomObject, attributes: Attributes, stored: NDArray[Any], index: int) -> Image:
    """Return a frame of RGB as its brightness; the levels are shown unchanged."""
    return _brightness(stored, attributes, whole(attributes, "BitsStored", stored.dtype.itemsize * 8))


def _brightness(rgb: NDArray[Any], attributes: Attributes, bits: int) -> Image:
    white = Window(center=2 ** (bits - 1), width=2**bits)
    return Image(stored=rgb.astype(np.float32) @ LUMA, vois=(white,), spacing_mm=_spacing(attributes))


def palette_image(opened: DicomObject, attributes: Attributes, stored: NDArray[Any], index: int) -> Image:
    """Return a frame of PALETTE COLOR as brightness."""
    if opened.dataset is None:
        raise DataFault("undecodable", "the tables of PALETTE COLOR are missing")
    rgb, bits = palette_of(opened.dataset, stored, signed=stored.dtype.kind == "i")
    return _brightness(rgb, attributes, bits)


PHOTOMETRIC: Mapping[str, Callable[[DicomObject, Attributes, NDArray[Any], int], Image]] = {
    "MONOCHROME1": grey_image,
    "MONOCHROME2": grey_image,
    "PALETTE COLOR": palette_image,
    "RGB": colour_image,
    "YBR_FULL": colour_image,
    "YBR_FULL_422": colour_image,
    "YBR_RCT": colour_image,
    "YBR_ICT": colour_image,
}
"""Photometric Interpretation (PS3.3 C.7.6.3.1.2) -> the function that makes an image; decoders return RGB."""
