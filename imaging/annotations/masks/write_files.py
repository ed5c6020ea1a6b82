"""Writers of masks as NIfTI and PNG: for tools that take these, and for sources without a frame of reference."""

import gzip
from io import BytesIO

import nibabel
import numpy as np
import PIL.Image

from imaging.annotations.masks.placement import aligned
from imaging.dicom.geometry import to_ras
from imaging.errors import UserFault
from imaging.formats.nifti import HEADER_BYTES, plan_of
from imaging.image.source_grid import SourceGrid
from imaging.preprocess.inverse import Mask


def nifti_bytes(mask: Mask, grid: SourceGrid, like: bytes | None = None, *, compressed: bool = True) -> bytes:
    """Return a mask (grid.shape) as a NIfTI file, .nii.gz or .nii; the same mask gives the same bytes.

    `like` is the head of the NIfTI file that the image came from: the mask gets the order and direction of its axes,
    which tools compare beside the affine. Raises UserFault where it is not known where the image lies.
    """
    if grid.affine is None:
        raise UserFault(
            "the image does not say where it lies, and NIfTI needs an affine: write the mask as PNG"
        )
    affine, voxels = to_ras(grid.affine), mask.reshape(grid.size)
    if like is not None:
        plan = plan_of(like[:HEADER_BYTES])
        columns, rows, slices = (*plan.shape, 1)[:3]
        own = SourceGrid((slices, rows, columns), None, to_ras(plan.affine))
        affine, voxels = plan.affine, aligned(voxels, grid.affine, own)
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels.T), affine)
    # Both: readers differ in which of the two they take.
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    content: bytes = image.to_bytes()
    return gzip.compress(content, mtime=0) if compressed else content


def png_bytes(mask: Mask) -> bytes:
    """Return a mask (rows, columns) as a PNG whose grey levels are the class numbers."""
    if mask.ndim != 2:
        raise UserFault(
            f"a PNG is one slice, the mask has {mask.ndim} dimensions: write each slice, or NIfTI"
        )
    buffer = BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(mask, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
