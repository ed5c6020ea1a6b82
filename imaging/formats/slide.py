"""Reader of whole slides: tiles of one resolution with tissue in them, from a level in DICOM or from a TIFF pyramid."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import text
from imaging.dicom.dicom_object import open_object
from imaging.dicom.header import read_header
from imaging.dicom.limits import LIMITS
from imaging.dicom.pixel_length import check_present
from imaging.dicom.pixels import layout_of
from imaging.errors import DataFault, LeftOut
from imaging.file_io import process_buffer
from imaging.formats.grey_levels import full_range
from imaging.formats.slide_grid import LevelSize, TileGrid, choose_level
from imaging.formats.slide_level import DicomFrames, FrameReader, SlideLevel
from imaging.formats.tiff_slide import TiffFrames, open_slide
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.pixel_digests import digest_of_all, pixel_digest
from imaging.sources.protocol import Payload

COLOURED = 16
"""Levels between the largest and the smallest of red, green and blue from which on a pixel is stained: glass and dust
have less, and so has what is black (pen, edges of the coverslip)."""
DAMAGED = ("truncated", "undecodable", "surplus-data")
"""Reasons of frames that cost the tiles which they are part of, and not the slide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideOptions:
    """What of a slide is taken, as its source asks for it: see `PreprocessSpec`."""

    mpp: float
    size_px: int
    tissue: float
    piece: str

    @classmethod
    def of(cls, payload: Payload) -> "SlideOptions":
        """Return the options of a payload of `imaging.formats.slide_source`."""
        given = dict(payload.metadata)
        return cls(
            mpp=float(given["mpp"]),
            size_px=int(given["size_px"]),
            tissue=float(given["tissue"]),
            piece=given["piece"],
        )

    def grid(self, level: LevelSize) -> TileGrid:
        """Return the checked grid of tiles over a level."""
        grid = TileGrid(level=level, size_px=self.size_px, mpp=self.mpp)
        grid.check()
        return grid


def read_slide(payload: Payload, modality: str) -> Iterator[Instance]:
    """Yield the tiles with tissue of one level of a slide in DICOM (PS3.3 A.32.8), or of a piece of it.

    The frame of a tile is its number in the grid, row by row from 1 on. Raises DataFault as `read_dicom` does and
    "slide-label", "slide-resolution"; behind the tiles LeftOut, where some are background or damaged.
    """
    options = SlideOptions.of(payload)
    (content,) = payload.contents
    opened = open_object(process_buffer().load(content, LIMITS.file_bytes))
    header = read_header(opened.attributes, modality, has_pixels=bool(opened.pixels))
    check_present(opened, layout_of(opened.attributes))
    frames = DicomFrames(opened)
    choose_level([frames.size], options.mpp)
    for tile, image in _tiles(frames, options):
        yield Instance(
            patient_id=header.patient_id,
            study_uid=header.study_uid,
            series_uid=header.series_uid,
            sop_instance_uid=header.series_uid,
            institution=header.institution,
            frame_of_reference_uid=text(opened.attributes, "FrameOfReferenceUID"),
            attributes=header.attributes,
            **_of_tile(tile, image, header.series_uid),
        )


def read_tiff_slide(payload: Payload, modality: str) -> Iterator[Instance]:
    """Yield the tiles with tissue of a slide in TIFF, or of a piece of it; the file is its own series and study.

    Raises DataFault as `open_slide` does, and LeftOut as `read_slide`.
    """
    options = SlideOptions.of(payload)
    (content,) = payload.contents
    patient = dict(payload.metadata).get("patient", "")
    if not patient:
        raise DataFault("missing-identifier", "the table names no patient for this file")
    sizes, pages, data = open_slide(content)
    chosen = choose_level(sizes, options.mpp)
    for tile, image in _tiles(TiffFrames(pages[chosen], sizes[chosen], data), options):
        yield Instance(
            patient_id=patient,
            study_uid=payload.name,
            series_uid=payload.name,
            sop_instance_uid=payload.name,
            attributes={"modality": modality},
            **_of_tile(tile, image, payload.name),
        )


def _of_tile(tile: int, image: Image, series_uid: str) -> dict[str, Any]:
    # A tile is its pixels: the file around it has gigabytes. Its place counts, as empty glass is the same everywhere.
    pixels = pixel_digest(image.stored)
    # A tile without any structure is no copy of one in another slide.
    of_series = [series_uid.encode()] if image.stored.min() == image.stored.max() else []
    placed = digest_of_all([pixels, (tile + 1).to_bytes(8, "little"), *of_series])
    return {
        "image": image,
        "frame": tile + 1,
        "content_blake3": pixels.hex(),
        "pixel_blake3": placed.hex(),
    }


def _tiles(frames: FrameReader, options: SlideOptions) -> Iterator[tuple[int, Image]]:
    """Yield number and grey image of each tile with tissue; raise LeftOut behind them where there are others."""
    grid, level = options.grid(frames.size), SlideLevel(frames)
    tiles = grid.tiles(options.piece)
    background, damaged = 0, list[DataFault]()
    for tile in tiles:
        try:
            pixels = level.cut(grid.box(tile))
        except DataFault as fault:
            if fault.reason not in DAMAGED:
                raise
            damaged.append(fault)
            continue
        if pixels is None or tissue_share(pixels, grid.size_px) < options.tissue:
            background += 1
            continue
        yield tile, _grey(pixels, frames)
    faults = list[DataFault]()
    if damaged:
        first = damaged[0]
        faults.append(
            DataFault(first.reason, f"{len(damaged)} of {len(tiles)} tiles, the first: {first.detail}")
        )
    if background:
        faults.append(DataFault("slide-background", f"{background} of {len(tiles)} tiles are background"))
    if faults:
        raise LeftOut(faults)


def tissue_share(pixels: NDArray[Any], size_px: int) -> float:
    """Return the share of the pixels of a tile that are stained, at the resolution of the model's input.

    Grey tiles have no colour, and count as tissue whole; those of one value show nothing.

    >>> tissue_share(np.array([[[240, 240, 238], [190, 90, 150]]], np.uint8).repeat(2, axis=0), 2)
    0.5
    """
    if pixels.ndim == 2:
        return float(pixels.min() != pixels.max())
    small = cv2.resize(pixels, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return float(np.mean(small.max(axis=2) - small.min(axis=2) >= COLOURED))


def _grey(pixels: NDArray[Any], frames: FrameReader) -> Image:
    # The same weights of colours as those of pictures, ITU-R BT.601.
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    return Image(
        stored=np.asarray(grey),
        vois=full_range(grey.dtype, frames.bits if pixels.ndim == 2 else 8),
        inverted=frames.inverted,
        spacing_mm=(frames.size.row_um / 1000, frames.size.column_um / 1000),
    )
