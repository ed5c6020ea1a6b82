"""Transforms of stored values: to modality units, and to grey levels as the file wants them shown."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from imaging.dicom.attributes import Attributes, Value, first, signed_16, text, whole
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.geometry import pixel_spacing
from imaging.errors import DataFault
from imaging.image.image import Image
from imaging.image.window import Lut, Sigmoid, Voi, Window

RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
"""The factors of PS3.3 C.11.1, each with its default."""

LARGEST = 1e30
"""Windows farther from zero are ignored; single precision ends at 3e38."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness, ITU-R BT.601."""


def _linear(center: float, width: float) -> Voi | None:
    return Window(center=center, width=width) if width > 1 else None


def _linear_exact(center: float, width: float) -> Voi | None:
    # Converted to LINEAR, whose bounds are half a value further in.
    return Window(center=center + 0.5, width=width + 1) if width > 0 else None


def _sigmoid(center: float, width: float) -> Voi | None:
    return Sigmoid(center, width) if width > 0 else None


FUNCTIONS: Mapping[str, Callable[[float, float], Voi | None]] = {
    "LINEAR": _linear,
    "LINEAR_EXACT": _linear_exact,
    "SIGMOID": _sigmoid,
}
"""VOI LUT Function (0028,1056) to the window that a center and a width make, PS3.3 C.11.2.1.2 and C.11.2.1.3."""


def file_vois(attributes: Attributes, groups: list[Dataset], *, signed: bool = False) -> list[Voi]:
    """Return the VOI transforms that a file offers, in its order: VOI LUTs, then windows (PS3.3 C.11.2).

    `signed` is whether the values in modality units may be negative.

    >>> header = {"WindowCenter": (0.0, 40.0), "WindowWidth": (100.0, 400.0), "VOILUTFunction": "LINEAR_EXACT"}
    >>> file_vois(header, [])
    [Window(center=0.5, width=101.0), Window(center=40.5, width=401.0)]
    """
    make_voi = FUNCTIONS.get(text(attributes, "VOILUTFunction") or "LINEAR")
    pairs = zip(_numbers(attributes, "WindowCenter"), _numbers(attributes, "WindowWidth"), strict=False)
    sane = [pair for pair in pairs if max(map(abs, pair)) <= LARGEST]
    windows = [make_voi(center, width) for center, width in sane] if make_voi else []
    luts = [_lut(item, signed) for item in _items(groups, "VOILUTSequence")]
    return [*luts, *(window for window in windows if window is not None)]


def _numbers(attributes: Attributes, keyword: str) -> tuple[float, ...]:
    value: Value = attributes.get(keyword, ())
    return value if isinstance(value, tuple) else ()


def _items(groups: list[Dataset], keyword: str) -> list[Dataset]:
    """Return the items of a sequence, from the last of the groups that has one."""
    return next((list(group[keyword].value) for group in reversed(groups) if group.get(keyword)), [])


def _lut(item: Dataset, signed: bool) -> Lut:
    """Return a table: number of entries, first value mapped, bits (PS3.3 C.11.1.1, C.11.2.1.1).

    `signed` is whether the values that are looked up may be negative: the VR of the descriptor is often wrong.
    """
    count, first_mapped, bits = (int(value) for value in item.LUTDescriptor)
    # In any VR the count is unsigned, and 0 means 65536.
    count = count % 65536 or 65536
    entries = _entries(item["LUTData"].value, count, "<>"[item.original_encoding[1] is False])
    if len(entries) < count:
        raise DataFault("undecodable", f"a table has {len(entries)} entries, {count} are needed")
    entries = np.asarray(entries[:count], np.uint16)
    return Lut(
        first=int(signed_16((first_mapped,), signed=signed)[0]),
        # Where entries need more bits than are stated, the largest of them is white.
        bits=max(bits if 1 <= bits <= 16 else 1, int(entries.max()).bit_length()),
        entries=entries,
    )


def _entries(data: Any, count: int, order: str) -> NDArray[Any]:
    """Return entries of two bytes each, or of one byte where there are not enough bytes for two."""
    if not isinstance(data, bytes):
        data, order = (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype("<u2").tobytes(), "<"
    if len(data) >= 2 * count:
        return np.frombuffer(data[: 2 * count], f"{order}u2")
    pairs = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    return np.frombuffer(pairs.astype("<u2").tobytes(), "u1")


def grey_image(opened: DicomObject, attributes: Attributes, stored: NDArray[Any], index: int) -> Image:
    """Return a grey frame with its transforms: modality LUT or rescale, padding, VOI and MONOCHROME1."""
    # A later one may override the tables of an earlier one.
    groups = [] if opened.dataset is None else [opened.dataset, *opened.macros(index)]
    slope, intercept = (_factor(attributes, keyword, default) for keyword, default in RESCALE)
    padding, signed = _padding(attributes), stored.dtype.kind != "u"
    tables = _items(groups, "ModalityLUTSequence")
    if tables:
        stored, padding = _look_up(stored, _lut(tables[0], signed), padding)
        slope, intercept, signed = 1.0, 0.0, False
    return Image(
        stored=stored,
        slope=slope,
        intercept=intercept,
        vois=tuple(file_vois(attributes, groups, signed=signed or intercept < 0)),
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


def _padding(attributes: Attributes) -> tuple[float, float] | None:
    """Return the range of Pixel Padding Value and Pixel Padding Range Limit, PS3.3 C.7.5.1.1.2."""
    value = first(attributes, "PixelPaddingValue")
    if value is None:
        return None
    limit = first(attributes, "PixelPaddingRangeLimit")
    ends = (value, value if limit is None else limit)
    return min(ends), max(ends)


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
    """Return a frame of PALETTE COLOR by its tables (PS3.3 C.7.6.3.1.5, C.7.9.2) as brightness."""
    if opened.dataset is None:
        raise DataFault("undecodable", "the tables of PALETTE COLOR are missing")
    rgb = apply_color_lut(stored, opened.dataset)[..., :3]
    return _brightness(rgb, attributes, rgb.dtype.itemsize * 8)


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
