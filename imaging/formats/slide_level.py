"""One level of a whole slide as a mosaic of frames, from which tiles are cut; a few frames are decoded at a time."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit

from imaging.dicom.attributes import Attributes, text, whole
from imaging.dicom.codecs import check_codestream
from imaging.dicom.codestream import bare
from imaging.dicom.dicom_object import PER_FRAME, SHARED, DicomObject
from imaging.dicom.geometry import pixel_spacing
from imaging.dicom.parse import reading
from imaging.dicom.pixels import Layout, layout_of, stored_frame
from imaging.errors import DataFault
from imaging.formats.slide_grid import LevelSize

Pixels = NDArray[Any]

CACHED_BYTES = 2**26
"""Decoded frames that are kept: tiles seldom begin where frames do."""
ALLOWED_BITS: Mapping[int, tuple[int, ...]] = {1: (8, 16), 3: (8,)}
"""Samples a pixel -> bits of a sample that slides are read with."""
COLOUR_MARKERS = (b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\xff\xd8\xff\xee\x00\x0eAdobe")
"""Beginnings of JPEG with a first marker that says which colours the samples are; the header need not be right."""
MATRIX = ("TotalPixelMatrixRows", "TotalPixelMatrixColumns")
SMALL_PICTURES = ("THUMBNAIL", "LOCALIZER")
"""Values 3 of ImageType of pictures of the whole specimen (PS3.3 C.8.12.4.1.1; the second is retired)."""
UM_A_MM = 1000.0


class FrameReader(Protocol):
    """Frames of one level, all of one size; those at the right and lower edge may go beyond the level."""

    size: LevelSize
    frame_shape: tuple[int, int]
    samples: int
    dtype: np.dtype[Any]
    bits: int
    inverted: bool

    def frame(self, row: int, column: int) -> Pixels | None:
        """Return a frame (rows, columns[, 3]) by its place among the frames, None where there is none."""
        ...


@dataclass(eq=False)
class SlideLevel:
    """Level of a slide that tiles are cut from."""

    reader: FrameReader
    _kept: OrderedDict[tuple[int, int], Pixels] = field(default_factory=OrderedDict)
    _kept_bytes: int = 0

    def cut(self, box: tuple[int, int, int, int]) -> Pixels | None:
        """Return the pixels of a box (first row, first column, rows, columns), None where no frame has any of them.

        Pixels without a frame are white glass in colour, and 0 in grey. Raises DataFault for a damaged frame.
        """
        top, left, rows, columns = box
        reader, size = self.reader, self.reader.size
        out: Pixels | None = None
        # Beyond the level frames are filled up with anything.
        bottom, right = min(top + rows, size.rows), min(left + columns, size.columns)
        for (row, column), (frame_top, frame_left) in self._places(top, left, bottom, right):
            frame = self._frame(row, column)
            if frame is None:
                continue
            if out is None:
                shape = (rows, columns) if reader.samples == 1 else (rows, columns, 3)
                out = np.full(shape, 255 if reader.samples == 3 else 0, reader.dtype)
            y, x = max(top, frame_top), max(left, frame_left)
            part = frame[y - frame_top : bottom - frame_top, x - frame_left : right - frame_left]
            out[y - top : y - top + part.shape[0], x - left : x - left + part.shape[1]] = part
        return out

    def _places(
        self, top: int, left: int, bottom: int, right: int
    ) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield the places of the frames that meet a box, each with its first row and column in the level."""
        height, width = self.reader.frame_shape
        for row in range(top // height, -(-bottom // height)):
            for column in range(left // width, -(-right // width)):
                yield (row, column), (row * height, column * width)

    def _frame(self, row: int, column: int) -> Pixels | None:
        place = (row, column)
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        frame = self.reader.frame(row, column)
        if frame is not None:
            self._kept[place] = frame
            self._kept_bytes += frame.nbytes
            while self._kept_bytes > CACHED_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return frame


def level_size(attributes: Attributes) -> LevelSize:
    """Return the size of the level in an object; `attributes` are those of its first frame.

    Raises DataFault "unsupported" for an object that is no whole slide, "slide-resolution" without Pixel Spacing.
    """
    rows, columns = (whole(attributes, name, 0) for name in MATRIX)
    if min(rows, columns) < 1:
        raise DataFault("unsupported", "the object is no whole slide: it has no total pixel matrix")
    spacing = pixel_spacing(attributes)
    if spacing.source != "PixelSpacing":
        raise DataFault("slide-resolution", "PixelSpacing is missing, or no pair of lengths")
    return LevelSize(
        rows=rows, columns=columns, row_um=spacing.row_mm * UM_A_MM, column_um=spacing.column_mm * UM_A_MM
    )


def tiff_level_sizes(attributes: Attributes) -> list[LevelSize]:
    """Return the sizes of levels of which each has a value in the total pixel matrix, see `slide_extent`."""
    first = level_size(attributes)
    matrix = zip(*(attributes[name] for name in MATRIX), strict=True)
    return [
        LevelSize(
            rows=int(rows),
            columns=int(columns),
            row_um=first.row_um * first.rows / rows,
            column_um=first.column_um * first.columns / columns,
        )
        for rows, columns in ((float(down), float(across)) for down, across in matrix)
    ]


def check_flavor(attributes: Attributes) -> None:
    """Raise DataFault "slide-thumbnail" or "unsupported" for an image that is no level of a slide."""
    flavor = text(attributes, "ImageType").split("\\")[2:3]
    if flavor and flavor[0] in SMALL_PICTURES:
        raise DataFault("slide-thumbnail")
    if flavor != ["VOLUME"]:
        raise DataFault(
            "unsupported", "the image is no level of a slide: value 3 of its ImageType is not VOLUME"
        )


class DicomFrames:
    """Frames of a VL Whole Slide Microscopy Image (PS3.3 A.32.8), of which each is a tile of the total pixel matrix."""

    def __init__(self, opened: DicomObject) -> None:
        check_flavor(opened.attributes)
        self._opened = opened
        self._layout = layout = layout_of(opened.attributes)
        self.size = level_size(opened.frame_attributes(0))
        if layout.bits_allocated not in ALLOWED_BITS[layout.samples] or layout.photometric == "PALETTE COLOR":
            raise DataFault(
                "unsupported",
                f"a slide of {layout.samples} samples of {layout.bits_allocated} bits: "
                "3 of 8, or 1 of 8 or 16 are read",
            )
        self.frame_shape = (layout.rows, layout.columns)
        self.samples, self.bits, self.dtype = layout.samples, layout.bits_stored, _dtype(layout)
        self.inverted = layout.photometric == "MONOCHROME1"
        with reading("unreadable", "the places of the frames"):
            self._numbers = _frame_numbers(opened, layout, self.size)

    def frame(self, row: int, column: int) -> Pixels | None:
        """Return a frame by its place, None where a sparse slide has none."""
        number = self._numbers.get((row, column))
        if number is None:
            return None
        fast = self._colour_jpeg(number) if self._opened.syntax == JPEGBaseline8Bit else None
        return stored_frame(self._opened, self._layout, number) if fast is None else fast

    def _colour_jpeg(self, number: int) -> Pixels | None:
        """Return a frame of JPEG in colour: libjpeg-turbo takes a twentieth of the time of pydicom's plugins.

        None where these must try, as where no marker says how the colours are written.
        """
        if self.samples != 3:
            return None
        frame = bare(self._opened.fragment(number))
        check_codestream(frame, JPEGBaseline8Bit, self.frame_shape, 3, self._layout.bits_allocated)
        if not bytes(frame[:12]).startswith(COLOUR_MARKERS):
            return None
        with suppress(Exception):  # the codec has exceptions of its own
            return np.asarray(imagecodecs.jpeg8_decode(bytes(frame)))
        return None


def _dtype(layout: Layout) -> np.dtype[Any]:
    return np.dtype(f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")


def _frame_numbers(opened: DicomObject, layout: Layout, size: LevelSize) -> Mapping[tuple[int, int], int]:
    """Return the number of the frame at each place, of which some may have none.

    Without positions of their own the frames are all there, row by row (TILED_FULL, PS3.3 C.7.6.17.3). Positions are
    those of the first pixel, from 1 on (C.8.12.6.1). Raises DataFault "unsupported" for several focal planes or optical
    paths, for a part of a concatenation, and for frames that lie on no grid.
    """
    dataset = opened.dataset if opened.dataset is not None else Dataset()
    if "ConcatenationUID" in dataset and dataset.get("InConcatenationTotalNumber", 2) != 1:
        raise DataFault(
            "unsupported", "the level is a concatenation: several files of which each has some frames"
        )
    across = math.ceil(size.columns / layout.columns)
    full = math.ceil(size.rows / layout.rows) * across
    items = dataset.get(PER_FRAME) or []
    shared = dataset.get(SHARED) or []
    positions = [_position(item) for item in items[: layout.frames]]
    if not any(positions) and layout.frames == 1 and shared:
        positions = [_position(shared[0])]
    if not any(positions):
        if layout.frames != full:
            raise DataFault(
                "unsupported",
                f"{layout.frames} frames without positions, {full} would fill the slide: focal planes, optical paths "
                "or a concatenation",
            )
        return {divmod(number, across): number for number in range(full)}
    numbers: dict[tuple[int, int], int] = {}
    for number, position in enumerate(positions):
        if position is None:
            raise DataFault("no-geometry", "a frame does not tell where it lies")
        (row, top), (column, left) = (
            divmod(at - 1, side) for at, side in zip(position, (layout.rows, layout.columns), strict=True)
        )
        if top or left or row < 0 or column < 0:
            raise DataFault(
                "unsupported", "frames lie on no grid: their positions are no multiples of their size"
            )
        if numbers.setdefault((row, column), number) != number:
            raise DataFault("unsupported", "two frames lie at one place: focal planes or optical paths")
    return numbers


def _position(groups: Dataset) -> tuple[int, int] | None:
    """Return row and column of the first pixel of a frame, from 1 on."""
    for item in groups.get("PlanePositionSlideSequence") or []:
        return (
            int(item.RowPositionInTotalImagePixelMatrix),
            int(item.ColumnPositionInTotalImagePixelMatrix),
        )
    return None
