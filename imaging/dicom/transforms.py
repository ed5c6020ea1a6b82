"""Owns the tables of transforms from stored values to modality units and to how a file wants them shown."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from imaging.dicom.attributes import Attributes, Value, first, text
from imaging.dicom.geometry import pixel_spacing
from imaging.dicom.opened import Opened
from imaging.errors import DataFault
from imaging.image import Image
from imaging.window import Lut, Sigmoid, Voi, Window

RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
"""The factors of PS3.3 C.11.1 and what holds where a file has none."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Red, green and blue in the brightness that an eye sees, ITU-R BT.601."""


def _linear(center: float, width: float) -> Voi | None:
    return Window(center=center, width=width) if width > 1 else None


def _linear_exact(center: float, width: float) -> Voi | None:
    # Said in the words of LINEAR, whose bounds lie half a value inside.
    return Window(center=center + 0.5, width=width + 1) if width > 0 else None


def _sigmoid(center: float, width: float) -> Voi | None:
    return Sigmoid(center, width) if width > 0 else None


FUNCTIONS: Mapping[str, Callable[[float, float], Voi | None]] = MappingProxyType(
    {"LINEAR": _linear, "LINEAR_EXACT": _linear_exact, "SIGMOID": _sigmoid}
)
"""VOI LUT Function (0028,1056) to the window that a center and a width make, PS3.3 C.11.2.1.2 and C.11.2.1.3."""


def file_vois(attributes: Attributes, groups: list[Dataset]) -> list[Voi]:
    """Return the ways to be shown that a file offers, in its order: VOI LUTs, then windows (PS3.3 C.11.2).

    >>> said = {"WindowCenter": (0.0, 40.0), "WindowWidth": (100.0, 400.0), "VOILUTFunction": "LINEAR_EXACT"}
    >>> file_vois(said, [])
    [Window(center=0.5, width=101.0), Window(center=40.5, width=401.0)]
    """
    made = FUNCTIONS.get(text(attributes, "VOILUTFunction") or "LINEAR")
    pairs = zip(_numbers(attributes, "WindowCenter"), _numbers(attributes, "WindowWidth"), strict=False)
    windows = [made(center, width) for center, width in pairs] if made else []
    return [*_luts(groups, "VOILUTSequence"), *(window for window in windows if window is not None)]


def _numbers(attributes: Attributes, keyword: str) -> tuple[float, ...]:
    value: Value = attributes.get(keyword, ())
    return value if isinstance(value, tuple) else ()


def _luts(groups: list[Dataset], keyword: str) -> list[Lut]:
    """Return the tables of a sequence, wherever among the functional groups it stands, the strongest first."""
    for group in reversed(groups):
        holders: list[Any] = [group, *(e.value[0] for e in group if e.VR == "SQ" and len(e.value))]
        for holder in holders:
            if holder.get(keyword):
                return [_lut(item) for item in holder[keyword].value]
    return []


def _lut(item: Dataset) -> Lut:
    """Read a table: number of entries, first value mapped, bits (PS3.3 C.11.1.1)."""
    count, first_mapped, bits = (int(value) for value in item.LUTDescriptor)
    data, count = item["LUTData"].value, count or 65536
    if isinstance(data, bytes):
        entries = np.frombuffer(data, "<u2" if len(data) >= 2 * count else "u1")
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if len(entries) < count:
        raise DataFault("undecodable", f"a table has {len(entries)} entries, {count} are needed")
    # Bits are often said to be 16 where the entries are of 12; what is white is the largest entry then.
    return Lut(first=first_mapped, bits=bits, entries=np.asarray(entries[:count], np.uint16))


def grey_image(opened: Opened, attributes: Attributes, stored: NDArray[Any], index: int) -> Image:
    """Return a grey frame with its transforms: modality LUT or rescale, padding, VOI and MONOCHROME1."""
    groups = _groups(opened, index)
    slope, intercept = (_factor(attributes, keyword, default) for keyword, default in RESCALE)
    padding = _padding(attributes)
    tables = _luts(groups, "ModalityLUTSequence")
    if tables:
        stored, padding = _look_up(stored, tables[0], padding), None
        slope, intercept = 1.0, 0.0
    return Image(
        stored=stored,
        slope=slope,
        intercept=intercept,
        vois=tuple(file_vois(attributes, groups)),
        inverted=text(attributes, "PhotometricInterpretation") == "MONOCHROME1",
        padding=padding,
        spacing_mm=_spacing(attributes),
    )


def _groups(opened: Opened, index: int) -> list[Dataset]:
    return [] if opened.dataset is None else [opened.dataset, *opened.groups(index)]


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


def _look_up(stored: NDArray[Any], table: Lut, padding: tuple[float, float] | None) -> NDArray[Any]:
    found = table.look_up(stored)
    if padding is None:
        return found
    # Behind a table there is no stored value left to tell padding by: it takes the darkest entry.
    hidden = (stored >= padding[0]) & (stored <= padding[1])
    return np.where(hidden, table.entries.min(), found)


def _spacing(attributes: Attributes) -> tuple[float, float] | None:
    spacing = pixel_spacing(attributes)
    return (spacing.row_mm, spacing.column_mm) if spacing.source else None


def colour_image(opened: Opened, attributes: Attributes, stored: NDArray[Any], index: int) -> Image:
    """Return a frame of RGB as the brightness of it; its levels are shown as they are."""
    bits = stored.dtype.itemsize * 8
    luma = stored.astype(np.float32) @ LUMA
    return Image(
        stored=luma, vois=(Window(center=2 ** (bits - 1), width=2**bits),), spacing_mm=_spacing(attributes)
    )


def palette_image(opened: Opened, attributes: Attributes, stored: NDArray[Any], index: int) -> Image:
    """Return a frame of PALETTE COLOR by its tables (PS3.3 C.7.6.3.1.5, C.7.9.2) as brightness."""
    rgb = apply_color_lut(stored, opened.dataset)
    return colour_image(opened, attributes, rgb, index)


PHOTOMETRIC: Mapping[str, Callable[[Opened, Attributes, NDArray[Any], int], Image]] = MappingProxyType(
    {
        "MONOCHROME1": grey_image,
        "MONOCHROME2": grey_image,
        "PALETTE COLOR": palette_image,
        "RGB": colour_image,
        "YBR_FULL": colour_image,
        "YBR_FULL_422": colour_image,
        "YBR_RCT": colour_image,
        "YBR_ICT": colour_image,
    }
)
"""Photometric Interpretation (PS3.3 C.7.6.3.1.2) to what becomes of a frame; decoders hand over RGB."""
