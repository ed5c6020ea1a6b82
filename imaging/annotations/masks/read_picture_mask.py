"""Reader of PNG masks: the grey levels, or the numbers of a palette, are the values."""

import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask
from imaging.annotations.masks.placement import other_grid
from imaging.errors import DataFault
from imaging.formats.grey_levels import ORIENTATION, upright
from imaging.formats.non_dicom import decoding
from imaging.formats.picture import check_picture

MODES = frozenset({"1", "L", "P", "I;16", "I;16L", "I;16B", "I"})
"""Pillow's modes with one value a pixel; of a palette (P) it is the number of the colour."""


def open_picture_mask(
    content: bytes | memoryview, classes: MaskClasses
) -> Callable[[MaskTarget], SourceMask]:
    """Return the function that gives the mask of an image of one slice; every class counts as drawn.

    Raises DataFault "mask-values", "unsupported" for colours, and as the reader of pictures does; the function raises
    "mask-grid" for another size.
    """
    numbers = classes.of_values(picture_values(content))
    rows, columns = numbers.shape

    def mask_of(target: MaskTarget) -> SourceMask:
        if (1, rows, columns) != target.grid.size:
            raise other_grid((1, rows, columns), target.grid)
        return SourceMask(numbers.reshape(target.grid.shape), frozenset())

    return mask_of


def picture_values(content: bytes | memoryview) -> NDArray[Any]:
    """Return the values (rows, columns) of a PNG; raise DataFault as the reader of pictures does."""
    data = bytes(content)
    with decoding(), warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        try:
            with PIL.Image.open(BytesIO(data), formats=("PNG",)) as picture:
                check_picture(picture, data)
                values = _values(picture)
                return upright(values, picture.getexif().get(ORIENTATION))
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            raise DataFault(
                "too-large", f"the mask has more than {PIL.Image.MAX_IMAGE_PIXELS} pixels"
            ) from None
        except PIL.UnidentifiedImageError:
            raise DataFault("unreadable", "the mask is no PNG") from None
        except OSError:
            raise DataFault("truncated", "the file ends within its picture, or is damaged") from None


def _values(picture: PIL.Image.Image) -> NDArray[Any]:
    if picture.mode in MODES:
        return np.asarray(picture).astype(np.int64 if picture.mode == "I" else np.uint16)
    pixels = np.asarray(picture.convert("RGBA"))
    grey = pixels[..., 0]
    if (pixels[..., 1:3] != grey[..., None]).any() or (pixels[..., 3] != 255).any():
        raise DataFault(
            "unsupported",
            "a mask of colours: save class numbers as grey levels, or as a picture with a palette",
        )
    return grey.astype(np.uint16)
