"""Reader of PNG, JPEG and TIFF pictures as grey images."""

import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import PIL.Image

from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault
from imaging.formats.grey_levels import ORIENTATION, full_range, upright
from imaging.formats.non_dicom import content_of, decoding, instances
from imaging.formats.tiff import LAYOUTS, read_tiff
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.image.window import IDENTITY
from imaging.sources.protocol import Payload

LAST_BYTES = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
"""The end of a complete file: PNG's last chunk (12 bytes), JPEG's marker EOI."""

DEEP = ("I;16", "I;16L", "I;16B", "I")
"""Pillow's modes of grey with 16 bits."""


def read_picture(payload: Payload, modality: str) -> Iterator[Instance]:
    """Yield the picture, or each page of a TIFF, as grey levels: 8 bits stay 0..255, more bits stay unchanged.

    Colour becomes luma, transparent pixels become black. Raises DataFault "truncated", "too-large", "unsupported",
    "undecodable" or "missing-identifier".
    """
    data = content_of(payload)
    if bytes(data[:4]) in LAYOUTS:
        images, count = read_tiff(data)
    else:
        images, count = iter([_read(bytes(data))]), 1
    yield from instances(payload, data, modality, images, count)


def _read(data: bytes) -> Image:
    with decoding(), warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        try:
            with PIL.Image.open(BytesIO(data), formats=tuple(LAST_BYTES)) as picture:
                check_picture(picture, data)
                return _grey(picture)
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            limit = PIL.Image.MAX_IMAGE_PIXELS
            raise DataFault("too-large", f"the picture has more than {limit} pixels") from None
        except PIL.UnidentifiedImageError:
            raise DataFault("unreadable", "the file is no PNG, JPEG or TIFF") from None
        except OSError as error:
            if "truncated" in str(error):
                raise DataFault("truncated", "the file ends within its picture") from None
            raise


def check_picture(picture: PIL.Image.Image, data: bytes) -> None:
    """Raise DataFault "too-large", "unsupported" or "truncated" where the header or the end is not valid."""
    columns, rows = picture.size
    check_limit("too-large", "the larger side in pixels", max(rows, columns), LIMITS.rows_columns)
    check_limit("too-large", "the decoded picture in bytes", rows * columns * 4, LIMITS.frame_bytes)
    if getattr(picture, "is_animated", False) and picture.format == "PNG":
        raise DataFault("unsupported", "an animated PNG")
    # An interrupted copy is often filled up with zeros, which Pillow decodes as if they were the rest.
    end = LAST_BYTES.get(picture.format or "", LAST_BYTES["JPEG"])
    if data.rfind(end) < 0:
        raise DataFault("truncated", "the file lacks its last bytes")


def _grey(picture: PIL.Image.Image) -> Image:
    orientation = picture.getexif().get(ORIENTATION)
    if picture.mode in DEEP:
        stored = np.asarray(picture).astype(np.uint16)
        return Image(stored=upright(stored, orientation), vois=full_range(stored.dtype, 16))
    opaque = picture
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        opaque = PIL.Image.alpha_composite(PIL.Image.new("RGBA", opaque.size, (0, 0, 0, 255)), opaque)
    elif picture.mode == "P":
        opaque = picture.convert("RGB")
    return Image(stored=upright(np.asarray(opaque.convert("L")), orientation), vois=(IDENTITY,))
