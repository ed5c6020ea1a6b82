"""Extent of files without a DICOM header: how many images of which size, and how many volumes, without their pixels."""

import warnings
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO

import PIL.Image

from imaging.dicom.attributes import Value
from imaging.file_io import Content, process_buffer
from imaging.formats.nifti import GZIP, HEADER_BYTES, plan_of
from imaging.formats.non_dicom import decoding
from imaging.formats.picture import LAST_BYTES
from imaging.formats.slide_level import MATRIX, UM_A_MM
from imaging.formats.tiff import LAYOUTS, count_pages
from imaging.formats.tiff_slide import open_slide

HEAD_BYTES = 2**16
Extent = tuple[dict[str, Value], int]
"""Rows, Columns and NumberOfFrames as far as they are known, and the number of volumes."""


def extent_of(kind: str, content: Content) -> Extent:
    """Return the extent of a file of a format; raise DataFault where its header cannot be read."""
    measure = MEASURES.get(kind)
    return measure(content) if measure else ({}, 0)


def slide_extent(content: Content) -> Extent:
    """Return the size of a slide in TIFF: a value for each level, and the spacing of the first."""
    sizes, *_ = open_slide(content)
    sides = zip(*((float(one.rows), float(one.columns)) for one in sizes), strict=True)
    spacing = (sizes[0].row_um / UM_A_MM, sizes[0].column_um / UM_A_MM)
    return {**dict(zip(MATRIX, sides, strict=True)), "PixelSpacing": spacing}, 0


def _of_nifti(content: Content) -> Extent:
    head, _ = process_buffer().head(content, HEAD_BYTES)
    with decoding():
        first = bytes(head)
        if first.startswith(GZIP):
            first = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(first, HEADER_BYTES)
        plan = plan_of(first[:HEADER_BYTES])
    columns, rows, *others = plan.shape
    # Slices of a volume count as images, as they do in DICOM.
    images = others[0] * plan.count if others else 1
    return _attributes(rows, columns, images), plan.count if others else 0


def _of_picture(content: Content) -> Extent:
    data = process_buffer().mapped(content)
    if bytes(data[:4]) in LAYOUTS:
        return {"NumberOfFrames": (float(count_pages(data)),)}, 0
    with (
        decoding(),
        warnings.catch_warnings(action="ignore"),
        PIL.Image.open(BytesIO(data), formats=tuple(LAST_BYTES)) as picture,
    ):
        columns, rows = picture.size
    return _attributes(rows, columns, 1), 0


def _attributes(rows: int, columns: int, images: int) -> dict[str, Value]:
    numbers = {"Rows": rows, "Columns": columns, "NumberOfFrames": images}
    return {name: (float(number),) for name, number in numbers.items()}


MEASURES: Mapping[str, Callable[[Content], Extent]] = {"nifti": _of_nifti, "picture": _of_picture}
