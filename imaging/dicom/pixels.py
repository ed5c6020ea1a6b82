"""Owns the way from stored pixel data to modality units, and the window that the file asks for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import parse_fragments
from pydicom.pixels.processing import apply_modality_lut

from imaging.dicom.codecs import find_decoder
from imaging.dicom.header import number, text
from imaging.dicom.parse import reading
from imaging.errors import DataFault
from imaging.preprocess import Window

PIXEL_LIMIT = 2**26
"""The most pixels of one image: 8192 x 8192. A header of 600 bytes can ask for terabytes."""

RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
"""The factors of PS3.3 C.11.1 and what holds where a file has none."""

LINEAR_EQUIVALENT: dict[str, tuple[float, float]] = {"LINEAR": (0.0, 0.0), "LINEAR_EXACT": (0.5, 1.0)}
"""VOI LUT Function (PS3.3 C.11.2.1.3): what to add to center and width to say the same as LINEAR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """One decoded image: values (rows, columns) in modality units and how the file wants it shown."""

    values: NDArray[np.float32]
    window: Window | None
    inverted: bool


def read_pixels(dataset: Dataset) -> Pixels:
    """Decode the one frame of a grey-scale data set that `read_header` let pass.

    Raises DataFault "truncated" or "undecodable", and EnvironmentFault for a decoder that is not installed.
    """
    with reading("undecodable"):
        decoder = find_decoder(dataset.file_meta.TransferSyntaxUID)
        _check_length(dataset, decoder.is_encapsulated)
        stored, _ = decoder.as_array(dataset, index=0)
        values = _modality_values(stored, dataset)
        if not np.isfinite(values).all():
            raise DataFault("undecodable", "the rescaled values are too large for single precision")
        return Pixels(
            values=values,
            window=file_window(dataset),
            inverted=text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
        )


def rescale(stored: NDArray[np.integer], slope: float, intercept: float) -> NDArray[np.float32]:
    """Map stored values to the modality's units (Hounsfield for CT), PS3.3 C.11.1.

    >>> rescale(np.array([0, 1024]), 1.0, -1024.0)
    array([-1024.,     0.], dtype=float32)
    """
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def file_window(dataset: Dataset) -> Window | None:
    """Return the first window of a file as a LINEAR one, or None where it has none that is linear and valid.

    >>> dataset = Dataset()
    >>> dataset.WindowCenter, dataset.WindowWidth = [0, 40], [100, 400]
    >>> dataset.VOILUTFunction = "LINEAR_EXACT"
    >>> file_window(dataset)
    Window(center=0.5, width=101.0)
    """
    shift = LINEAR_EQUIVALENT.get(text(dataset, "VOILUTFunction") or "LINEAR")
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    if shift is None or center is None or width is None or width + shift[1] <= 1:
        return None
    return Window(center=center + shift[0], width=width + shift[1])


def _check_length(dataset: Dataset, encapsulated: bool) -> None:
    """Refuse pixel data that is shorter, or an image that is larger, than the header may say."""
    pixels = int(dataset.Rows) * int(dataset.Columns)
    if pixels > PIXEL_LIMIT:
        raise DataFault("undecodable", f"Rows x Columns is {pixels}, the limit is {PIXEL_LIMIT}")
    if encapsulated:
        fragments, _ = parse_fragments(dataset.PixelData)
        # The first item is the Basic Offset Table (PS3.5 A.4), never an image.
        present, needed, unit = fragments - 1, 1, "fragments"
    else:
        present, needed, unit = (
            len(dataset.PixelData),
            (pixels * int(dataset.BitsAllocated) + 7) // 8,
            "bytes",
        )
    if present < needed:
        raise DataFault("truncated", f"PixelData has {max(present, 0)} {unit}, {needed} are needed")


def _modality_values(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.float32]:
    if "ModalityLUTSequence" in dataset:
        return apply_modality_lut(stored, dataset).astype(np.float32)
    slope, intercept = (_factor(dataset, keyword, default) for keyword, default in RESCALE)
    return rescale(stored, slope, intercept)


def _factor(dataset: Dataset, keyword: str, default: float) -> float:
    if dataset.get(keyword) in (None, ""):
        return default
    value = number(dataset, keyword)
    if value is None:
        raise DataFault("undecodable", f"{keyword} is not a finite number")
    return value
