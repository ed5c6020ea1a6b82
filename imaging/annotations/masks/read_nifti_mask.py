"""Reader of NIfTI masks: values are put on the image by the affine of the file."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask
from imaging.annotations.masks.placement import aligned
from imaging.dicom.geometry import to_ras
from imaging.dicom.limits import check_limit
from imaging.errors import DataFault
from imaging.formats.nifti import GZIP, HEADER_BYTES, inflate, plan_of
from imaging.formats.non_dicom import decoding
from imaging.image.source_grid import Affine

MOST_BYTES = 2**29
"""Of the inflated mask: a byte for each voxel of the largest volume that is taken in, or four of a usual one."""


def open_nifti_mask(content: bytes | memoryview, classes: MaskClasses) -> Callable[[MaskTarget], SourceMask]:
    """Return the function that gives the mask of an image; every class counts as drawn.

    The affine is that of the sform, or else of the qform (as nibabel takes it). Raises DataFault "mask-values" and as
    the reader of images does; the function raises "mask-grid" and "no-geometry".
    """
    stored, affine = _opened(content)
    numbers = classes.of_values(stored)
    return lambda target: SourceMask(aligned(numbers, affine, target.grid), frozenset())


def nifti_values(content: bytes | memoryview) -> NDArray[Any]:
    """Return the values (slices, rows, columns) of a NIfTI mask as integers; raise as `open_nifti_mask`."""
    return _opened(content)[0]


def _opened(content: bytes | memoryview) -> tuple[NDArray[Any], Affine]:
    """Return the values (slices, rows, columns) and the affine of a file."""
    logging.getLogger("nibabel").setLevel(logging.CRITICAL + 1)
    with decoding():
        packed = bytes(content[:2]) == GZIP
        head = bytes(content[:HEADER_BYTES])
        plan, data = inflate(content, MOST_BYTES) if packed else (plan_of(head), content)
        check_limit("too-large", "the mask in bytes", plan.end, MOST_BYTES)
    if plan.count > 1:
        raise DataFault("unsupported", f"a NIfTI mask of {plan.count} volumes, one is expected")
    if len(data) < plan.end:
        raise DataFault("truncated", f"the file holds {len(data)} of {plan.end} bytes")
    shape = (*plan.shape, 1)[:3]
    flat = np.frombuffer(data, plan.dtype, math.prod(shape), plan.offset)
    stored = flat.reshape(shape, order="F").T
    return _whole_numbers(stored, plan.slope, plan.intercept), to_ras(plan.affine)


def _whole_numbers(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Return the values as integers; raise DataFault "mask-values" for fractions, and values that are no numbers."""
    if stored.dtype.kind in "iu" and (slope, intercept) == (1.0, 0.0):
        return stored
    values = stored.astype(np.float64) * slope + intercept
    if not np.isfinite(values).all() or (np.abs(values - np.rint(values)) > 1e-3).any():
        raise DataFault(
            "mask-values", "the mask has values that are no whole numbers; probabilities are no mask"
        )
    return np.rint(values).astype(np.int64)
