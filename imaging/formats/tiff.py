"""Pages of a TIFF file (TIFF 6.0, BigTIFF) as grey images; no other file is ever opened."""

import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import tifffile

from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault
from imaging.formats.grey_levels import ORIENTATION, Grey, full_range, luma, upright
from imaging.formats.non_dicom import decoding
from imaging.image.image import Image

MICROSCOPE_FLAGS = frozenset(
    {"svs", "ndpi", "scn", "bif", "philips", "vista", "stk", "lsm", "mmstack", "eer"}
)
"""Flags of tifffile for files of microscopes, whose pages are levels, labels and channels and not frames."""

JPEG = 7
AXES = ("YX", "YXS", "SYX")
"""Rows, columns and samples, as tifffile names them."""

LAYOUTS: Mapping[bytes, tuple[str, int, str, int, str]] = {
    b"II*\0": ("<I", 4, "<H", 12, "<I"),
    b"MM\0*": (">I", 4, ">H", 12, ">I"),
    b"II+\0": ("<Q", 8, "<Q", 20, "<Q"),
    b"MM\0+": (">Q", 8, ">Q", 20, ">Q"),
}
"""By magic number: format and place of the first offset, format of the number of entries, bytes of an entry, format of
the next offset; TIFF 6.0 and BigTIFF in both byte orders."""


def read_tiff(data: bytes | memoryview) -> tuple[Iterator[Image], int]:
    """Return the pages one by one, and how many there are.

    Raises DataFault "truncated" where a page's bytes lie behind the end, "unsupported" for pyramids, slides and
    stacks without pages, "too-large" and "undecodable".
    """
    # Its log lines quote the file.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    with decoding():
        count = count_pages(data)
        tiff = tifffile.TiffFile(BytesIO(data), _multifile=False)
        if MICROSCOPE_FLAGS & set(tiff.flags):
            raise DataFault("unsupported", "a TIFF of a microscope")
        pages = [tiff.pages.get(index, cache=False) for index in range(count)]
        for page in pages:
            _check(page, len(data))
        if tiff.is_imagej and (tiff.imagej_metadata or {}).get("images", 1) > count:
            raise DataFault("unsupported", "a stack of ImageJ with one page for many images")
    return (_image(page) for page in pages), count


def count_pages(data: bytes | memoryview) -> int:
    """Return the length of the chain of pages; raise DataFault "truncated" where it leads beyond the end of the file.

    tifffile takes such a chain as ended.
    """
    first, position, number, entry_bytes, following = LAYOUTS[bytes(data[:4])]
    pages, width = 0, struct.calcsize(following)
    while offset := _number(data, first if not pages else following, position):
        pages += 1
        check_limit("too-large", "the number of pages", pages, LIMITS.frames)
        position = offset + struct.calcsize(number) + _number(data, number, offset) * entry_bytes
        check_limit("truncated", "the end of a page's table", position + width, len(data))
    if not pages:
        raise DataFault("no-pixels", "a TIFF without pages")
    return pages


def _number(data: bytes | memoryview, layout: str, position: int) -> int:
    check_limit("truncated", "the place of a number", position + struct.calcsize(layout), len(data))
    return int(struct.unpack_from(layout, data, position)[0])


def _check(page: Any, file_bytes: int) -> None:
    check_limit(
        "too-large", "the larger side in pixels", max(page.imagelength, page.imagewidth), LIMITS.rows_columns
    )
    samples = page.imagelength * page.imagewidth * page.samplesperpixel * page.imagedepth
    check_limit(
        "too-large", "the decoded page in bytes", samples * page.bitspersample // 8, LIMITS.frame_bytes
    )
    if page.is_reduced or page.subifds or page.is_mask:
        raise DataFault("unsupported", "a pyramid or a mask in TIFF")
    if page.axes not in AXES or 0 in page.shape:
        raise DataFault("unsupported", f"a TIFF page of {len(page.shape)} dimensions")
    if page.dtype is None or page.dtype.kind not in "buif" or page.photometric not in GREY:
        raise DataFault("unsupported", f"a TIFF of photometric {int(page.photometric)}")
    ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or 0 in page.databytecounts or max(ends) > file_bytes:
        raise DataFault("truncated", f"its pixels end at byte {max(ends, default=0)} of {file_bytes}")


def _image(page: Any) -> Image:
    with decoding():
        samples = page.asarray(maxworkers=1)
        if page.axes == "SYX":
            samples = np.moveaxis(samples, 0, -1)
        grey, bits = GREY[page.photometric](page, samples)
        if grey.dtype.kind == "b" or bits == 1:
            grey, bits = grey.astype(np.uint8) * np.uint8(255), 8
        if grey.dtype.kind == "f" and not np.isfinite(grey).all():
            raise DataFault("undecodable", "it holds values that are no numbers")
        tag = page.tags.get(ORIENTATION)
        return Image(
            stored=upright(grey, int(tag.value) if tag else 1),
            vois=full_range(grey.dtype, bits),
            inverted=page.photometric == 0,
        )


def _plain(page: Any, samples: Grey) -> tuple[Grey, int]:
    # A second sample beside grey is alpha.
    return samples[..., 0] if samples.ndim == 3 else samples, page.bitspersample


def _colour(page: Any, samples: Grey) -> tuple[Grey, int]:
    if samples.ndim != 3 or samples.shape[-1] < 3 or samples.dtype.kind != "u":
        raise DataFault("unsupported", "colour of other than three unsigned samples")
    return luma(samples), page.bitspersample


def _palette(page: Any, samples: Grey) -> tuple[Grey, int]:
    colours = np.asarray(page.colormap, np.uint16)
    # Some writers keep 8 bits in the table's 16, as libtiff knows.
    bits = 16 if colours.max(initial=0) > 255 else 8
    table = luma(colours.T[None])[0].astype(np.uint16 if bits == 16 else np.uint8)
    return table[samples], bits


def _ycbcr(page: Any, samples: Grey) -> tuple[Grey, int]:
    if page.compression != JPEG:
        raise DataFault("unsupported", "YCbCr that is not in JPEG")
    return _colour(page, samples)  # the codec has made it RGB


GREY: Mapping[int, Callable[[Any, Grey], tuple[Grey, int]]] = {
    0: _plain,
    1: _plain,
    2: _colour,
    3: _palette,
    6: _ycbcr,
}
"""PhotometricInterpretation (TIFF 6.0, tag 262) -> conversion to grey: white is 0, black is 0, RGB, palette, YCbCr."""
