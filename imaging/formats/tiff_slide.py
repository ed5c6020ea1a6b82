"""Levels of a slide in a TIFF pyramid: the generic ones, OME-TIFF and Aperio SVS; labels and macros are never read."""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from mmap import mmap
from typing import Any

import tifffile
from numpy.typing import NDArray

from imaging.dicom.codestream import codestream_size
from imaging.dicom.elements import Buffer
from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault
from imaging.file_io import Content, process_buffer
from imaging.formats.non_dicom import decoding
from imaging.formats.slide_grid import LevelSize
from imaging.formats.slide_level import ALLOWED_BITS
from imaging.formats.tiff import AXES, LAYOUTS, MICROSCOPE_FLAGS, count_pages

READ = frozenset({"svs"})
"""Flags of `imaging.formats.tiff` that are read here: others keep tiles or resolution in their own ways."""
PHOTOMETRIC = (0, 1, 2, 6)
"""White is 0, black is 0, RGB, YCbCr (TIFF 6.0, tag 262)."""
JPEG = 7
JPEG_2000 = (33005, 34712)
COMPRESSIONS = (1, 5, 8, JPEG, 32946, *JPEG_2000)
"""None, LZW, deflate, JPEG, deflate of old, JPEG 2000 in RGB (Aperio's and the plain one); 33003 is in YCbCr."""
UM_A_UNIT: Mapping[int, float] = {2: 25400.0, 3: 10000.0}
"""Micrometres in the units of tag ResolutionUnit (TIFF 6.0): inch and centimetre."""
POSSIBLE_UM = (0.05, 50.0)
"""Resolutions that a slide can have: 72 pixels an inch are what programs write that know none."""
APERIO = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")
OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^<>]*>")
"""The first is of the first image; a macro and a label have their own."""
OME = re.compile(r'\bPhysicalSize([XY])="([0-9.eE+-]+)"')
OME_UNIT = re.compile(r'\bPhysicalSize[XY]Unit="([^"]*)"')
MICROMETRES = frozenset({"µm", "μm", "um", "micrometer", "&#181;m", "&#xB5;m"})
SAME_SHAPE = 0.02
"""How much the proportions of a level may differ from those of the first."""


class TiffFrames:
    """Tiles or strips of one page."""

    def __init__(self, page: Any, size: LevelSize, data: Buffer) -> None:
        self._page, self._data = page, data
        self.size = size
        self.samples, self.bits, self.dtype = page.samplesperpixel, page.bitspersample, page.dtype
        self.inverted = page.photometric == 0
        self.frame_shape = (page.chunks[0], page.chunks[1])
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        check_limit("truncated", "the end of the last tile", max(ends, default=0), len(data))
        self._across = math.ceil(size.columns / page.chunks[1])

    def frame(self, row: int, column: int) -> NDArray[Any] | None:
        """Return a tile or strip, None where it has no bytes: scanners leave out what they did not scan."""
        page, number = self._page, row * self._across + column
        start, length = page.dataoffsets[number], page.databytecounts[number]
        if not length:
            return None
        check_limit("too-large", "the bytes of a tile", length, LIMITS.frame_bytes)
        coded = bytes(self._data[start : start + length])
        if page.compression in (JPEG, *JPEG_2000):
            self._check_size(coded)
        with decoding():
            tables = {"jpegtables": page.jpegtables} if page.compression == JPEG else {}
            decoded, _, shape = page.decode(coded, number, **tables)
            frame: NDArray[Any] = decoded.reshape(decoded.shape[-3:])[: shape[1], : shape[2]]
            return frame[..., 0] if self.samples == 1 else frame

    def _check_size(self, coded: bytes) -> None:
        """Raise DataFault where a codestream has not the size of a tile: decoders take memory of its own size."""
        size = codestream_size(coded)
        wanted = (*self.frame_shape, self.samples)
        if size is None or (size.rows, size.columns, size.samples) != wanted:
            claimed = f"{size.rows} x {size.columns} x {size.samples}" if size else "no size"
            raise DataFault(
                "undecodable",
                f"the codestream of a tile has {claimed}, its tile {' x '.join(map(str, wanted))}",
            )


def open_slide(content: Content) -> tuple[list[LevelSize], Sequence[Any], Buffer]:
    """Return the sizes of the levels of a slide, their pages, and the bytes of the file, mapped.

    Raises DataFault "unsupported" for what is no such slide, "slide-resolution" where it gives no resolution.
    """
    # Its log lines quote the file.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    data = process_buffer().mapped(content)
    if bytes(data[:4]) not in LAYOUTS:
        raise DataFault("unsupported", "a picture that is no TIFF is no slide")
    with decoding():
        count_pages(data)
        # A mapping can be read as a file.
        file: Any = data.obj if isinstance(data, memoryview) and isinstance(data.obj, mmap) else BytesIO(data)
        return (*_levels(tifffile.TiffFile(file, name="slide", _multifile=False)), data)


def _levels(tiff: tifffile.TiffFile) -> tuple[list[LevelSize], Sequence[Any]]:
    flags = MICROSCOPE_FLAGS & set(tiff.flags)
    if flags - READ:
        raise DataFault(
            "unsupported",
            f"a slide of the kind {', '.join(sorted(flags))}: convert it to DICOM or OME-TIFF",
        )
    if tiff.series[0].axes not in AXES[:2]:
        raise DataFault("unsupported", f"a TIFF of {len(tiff.series[0].axes)} dimensions is no slide")
    pages: list[Any] = [level.keyframe for level in tiff.series[0].levels]
    if len(pages) == 1 and not flags:
        # Each level may be a page of its own, as libvips writes them.
        others: Iterator[Any] = (tiff.pages.get(number, cache=False) for number in range(1, len(tiff.pages)))
        pages += [page for page in others if page.is_reduced and page.is_tiled]
    base = pages[0]
    if not base.is_tiled:
        raise DataFault("unsupported", "a TIFF without tiles is no slide")
    row_um, column_um = _resolution(tiff, base)
    kept = [page for page in pages if _is_level(page, base)]
    for page in kept:
        _check(page)
    sizes = [
        LevelSize(
            rows=page.imagelength,
            columns=page.imagewidth,
            row_um=row_um * base.imagelength / page.imagelength,
            column_um=column_um * base.imagewidth / page.imagewidth,
        )
        for page in kept
    ]
    return sizes, kept


def _is_level(page: Any, base: Any) -> bool:
    """Return whether a page is the same picture as the first one, smaller; labels and macros have other proportions."""
    ratio = (page.imagewidth / page.imagelength) / (base.imagewidth / base.imagelength)
    whole = 1 / min(page.imagewidth, page.imagelength)
    return page is base or (page.is_tiled and abs(ratio - 1) <= SAME_SHAPE + whole)


def _check(page: Any) -> None:
    samples, bits = page.samplesperpixel, page.bitspersample
    if samples not in ALLOWED_BITS or bits not in ALLOWED_BITS[samples] or page.dtype.kind != "u":
        raise DataFault(
            "unsupported", f"a slide of {samples} samples of {bits} bits: 3 of 8, or 1 of 8 or 16 are read"
        )
    if page.photometric not in PHOTOMETRIC or page.compression not in COMPRESSIONS:
        raise DataFault(
            "unsupported",
            f"a slide of photometric {int(page.photometric)}, compression {int(page.compression)}",
        )
    if page.photometric == 6 and page.compression != JPEG:
        raise DataFault("unsupported", "YCbCr that is not in JPEG")
    if page.imagedepth != 1 or (samples == 3 and page.planarconfig != 1):
        raise DataFault("unsupported", "a slide of several planes")
    frame = math.prod(page.chunks[:2])
    check_limit("too-large", "the number of pixels of a tile", frame, LIMITS.frame_samples)
    if len(page.dataoffsets) < math.prod(
        math.ceil(a / b) for a, b in zip(page.shape[:2], page.chunks[:2], strict=True)
    ):
        raise DataFault("truncated", "the table of tiles is too short")


def _resolution(tiff: Any, base: Any) -> tuple[float, float]:
    """Return the micrometres between rows and between columns of the first page.

    From the text of OME-TIFF or of Aperio, else from the tags of TIFF. Raises DataFault "slide-resolution".
    """
    description = base.description or ""
    um: tuple[float, float] | None = None
    if tiff.is_ome:
        pixels = OME_PIXELS.search(description)
        size = pixels[0] if pixels else ""
        axes, units = dict(OME.findall(size)), set(OME_UNIT.findall(size))
        if {"X", "Y"} <= axes.keys() and units <= MICROMETRES:
            um = float(axes["Y"]), float(axes["X"])
    elif tiff.is_svs and (match := APERIO.search(description)):
        um = float(match[1]), float(match[1])
    unit = base.tags.get("ResolutionUnit")
    if um is None and unit is not None and int(unit.value) in UM_A_UNIT:
        pair = [base.tags.get(name) for name in ("YResolution", "XResolution")]
        numbers = [tag.value[0] / tag.value[1] for tag in pair if tag is not None and all(tag.value)]
        if len(numbers) == 2:
            um = UM_A_UNIT[int(unit.value)] / numbers[0], UM_A_UNIT[int(unit.value)] / numbers[1]
    lower, upper = POSSIBLE_UM
    if um is None or not all(lower <= one <= upper for one in um):
        raise DataFault("slide-resolution", "the file does not say how many micrometres a pixel has")
    return um
