"""Reader of NIfTI-1 and NIfTI-2 files (.nii, .nii.gz): volumes in the orientation of a radiologist's view."""

import gzip
import logging
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray

from imaging.dicom.geometry import to_ras
from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault
from imaging.formats.non_dicom import content_of, decoding, instances
from imaging.image.image import PADDED, Image
from imaging.image.instance import Instance
from imaging.image.window import Window
from imaging.sources.archive_member import bomb_fault
from imaging.sources.protocol import FETCHED_LIMIT_BYTES, Payload

GZIP = b"\x1f\x8b"
HEADERS: Mapping[int, tuple[Any, bytes, slice]] = {
    348: (nibabel.Nifti1Header, b"n+1\0", slice(344, 348)),
    540: (nibabel.Nifti2Header, b"n+2\0", slice(4, 8)),
}
"""Length of a header -> its class, the magic of a single file, and the place of the magic."""
HEADER_BYTES = max(HEADERS)

TRAILING_BYTES = 2**20
MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Contents of a header, checked, in Python's numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    vois: tuple[Window, ...]

    @property
    def count(self) -> int:
        """The number of volumes in time."""
        return self.shape[3] if len(self.shape) > 3 else 1

    @property
    def volume_bytes(self) -> int:
        """The size of one volume."""
        return math.prod(self.shape[:3]) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Where the last volume ends."""
        return self.offset + self.volume_bytes * self.count


def read_nifti(payload: Payload, modality: str) -> Iterator[Instance]:
    """Yield the volume, or each volume of a series in time; of a file of two dimensions an image.

    A volume is (slices, rows, columns): slices towards the head, rows to the back, columns to the left (LPS).
    Raises DataFault "truncated", "surplus-data", "too-large", "inflate-bomb", "unsupported", "undecodable",
    "unreadable" or "missing-identifier".
    """
    # Its log lines quote the file.
    logging.getLogger("nibabel").setLevel(logging.CRITICAL + 1)
    content = content_of(payload)
    with decoding():
        packed = bytes(content[:2]) == GZIP
        plan, data = inflate(content) if packed else (plan_of(bytes(content[:HEADER_BYTES])), content)
    if len(data) < plan.end:
        raise DataFault("truncated", f"the file holds {len(data)} of {plan.end} bytes")
    findings = _padding(plan, memoryview(data)[plan.end :])
    images = (_image(plan, data, index) for index in range(plan.count))
    yield from instances(payload, content, modality, images, plan.count, findings)


def _padding(plan: Plan, rest: memoryview) -> tuple[str, ...]:
    """Return the finding of padding behind the last volume; raise DataFault "surplus-data" for anything else there.

    As in DICOM objects: less than a row of anything, or less than a volume of zeros.
    """
    if not rest:
        return ()
    is_short = len(rest) < plan.shape[0] * plan.dtype.itemsize
    if is_short or (len(rest) < plan.volume_bytes and not np.frombuffer(rest, np.uint8).any()):
        return ("padded-pixels",)
    raise DataFault(
        "surplus-data", f"{len(rest)} bytes follow {plan.count} volumes of {plan.volume_bytes} bytes"
    )


def inflate(content: bytes | memoryview, limit: int = FETCHED_LIMIT_BYTES) -> tuple[Plan, bytes]:
    """Return the header and the inflated bytes; raise DataFault for a bomb, a large or a damaged file."""
    try:
        with gzip.GzipFile(fileobj=BytesIO(content)) as file:
            head = file.read(HEADER_BYTES)
            plan = plan_of(head)
            check_limit("too-large", "all volumes in bytes", plan.end, limit + plan.offset)
            if bomb_fault(plan.end, len(content)):
                raise DataFault("inflate-bomb", f"{len(content)} bytes claim to inflate to {plan.end}")
            data = head + file.read(max(0, plan.end - len(head)))
            rest = file.read(TRAILING_BYTES)
            if len(rest) == TRAILING_BYTES:
                raise DataFault("inflate-bomb", f"more than {TRAILING_BYTES} bytes follow the last volume")
            return plan, data + rest if rest else data
    except EOFError:
        raise DataFault("truncated", "the compressed file is cut short") from None
    except (zlib.error, gzip.BadGzipFile):
        raise DataFault("unreadable", "the compressed data is damaged") from None


def plan_of(head: bytes) -> Plan:
    """Return the contents of a header, which is in the first HEADER_BYTES; raise DataFault as `read_nifti`."""
    if len(head) < 348:
        raise DataFault("truncated", f"the file holds {len(head)} of the header's 348 bytes")
    size = next(
        (s for s in HEADERS for order in ("little", "big") if int.from_bytes(head[:4], order) == s), 0
    )
    kind, magic, where = HEADERS.get(size, HEADERS[348])
    if head[where] != magic or len(head) < size:
        raise DataFault("unreadable", "the file has no header of a single NIfTI file")
    header = kind(head[:size], check=False)
    shape, dtype = _shape(header), header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataFault("unsupported", f"NIfTI's data type {int(header['datatype'])}")
    check_limit("too-large", "all volumes in bytes", math.prod(shape) * dtype.itemsize, FETCHED_LIMIT_BYTES)
    slope, intercept = header.get_slope_inter()
    plan = Plan(
        shape=shape,
        dtype=dtype,
        offset=int(header.get_data_offset()),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        affine=_affine(header),
        vois=_vois(float(header["cal_min"]), float(header["cal_max"])),
    )
    check_limit("undecodable", "the size of the header", size, plan.offset)
    return plan


def _shape(header: Any) -> tuple[int, ...]:
    """Return two to four lengths, each at least 1."""
    rank, *lengths = (int(length) for length in header["dim"])
    if not 2 <= rank <= 7 or min(lengths[:rank]) < 1:
        raise DataFault("undecodable", f"NIfTI's dim {[rank, *lengths]}")
    shape = lengths[:rank]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 4:
        raise DataFault("unsupported", f"NIfTI of {len(shape)} dimensions")
    check_limit("too-large", "the longest side", max(shape), LIMITS.rows_columns)
    return tuple(shape)


def _affine(header: Any) -> NDArray[np.float64]:
    """Return the matrix (4, 4) from voxel to mm in RAS, from the sform of the file or else its qform."""
    affine = np.array(header.get_best_affine(), np.float64)
    affine[:3] *= MM[header.get_xyzt_units()[0]]
    if not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise DataFault("undecodable", "the affine is singular or not finite")
    return affine


def _vois(lowest: float, highest: float) -> tuple[Window, ...]:
    """Return the window from cal_min to cal_max, in which the file wants to be shown."""
    if not (math.isfinite(lowest) and math.isfinite(highest) and lowest < highest):
        return ()
    width = highest - lowest + 1
    return (Window(center=lowest + 0.5 + (width - 1) / 2, width=width),)


def _image(plan: Plan, data: bytes | memoryview, index: int) -> Image:
    with decoding():
        count = math.prod(plan.shape[:3])
        flat = np.frombuffer(data, plan.dtype, count, plan.offset + index * plan.volume_bytes)
        stored, spacing, affine = _oriented(flat.reshape(plan.shape[:3], order="F"), plan.affine)
    stored, padding = _without_nan(stored)
    largest = max(abs(float(stored.min())), abs(float(stored.max())))
    if not largest * abs(plan.slope) + abs(plan.intercept) < LARGEST:
        raise DataFault("undecodable", "its values are infinite or too large for single precision")
    return Image(
        stored=stored,
        slope=plan.slope,
        intercept=plan.intercept,
        vois=plan.vois,
        padding=padding,
        spacing_mm=spacing,
        affine=affine,
    )


def _without_nan(stored: NDArray[Any]) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return the values with PADDED for NaN, and the range of padding: analysis tools write NaN outside of their mask.

    Raises DataFault "undecodable" where all of them are NaN.
    """
    # The minimum is NaN where one value is, and needs no array of its own.
    if stored.dtype.kind != "f" or not np.isnan(stored.min()):
        return stored, None
    hidden = np.isnan(stored)
    if hidden.all():
        raise DataFault("undecodable", "all its values are no numbers (NaN)")
    return np.where(hidden, stored.dtype.type(PADDED), stored), (PADDED, PADDED)


def _oriented(
    voxels: NDArray[Any], affine: NDArray[np.float64]
) -> tuple[NDArray[Any], tuple[float, ...], NDArray[np.float64]]:
    """Return voxels with axes reordered and flipped to be nearest to S, P and L, their spacing in mm, and an affine.

    It is from (column, row, slice, 1) to mm in LPS.
    """
    flat = voxels.ndim == 2
    cube = voxels[..., None] if flat else voxels
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "P", "S")))
    turned = apply_orientation(cube, turn)
    ordered = affine @ inv_ornt_aff(turn, cube.shape)
    columns, rows, slices = voxel_sizes(ordered)
    stored = np.ascontiguousarray(turned.T.astype(voxels.dtype.newbyteorder("="), copy=False))
    spacing = (float(slices), float(rows), float(columns))
    if not flat:
        return stored, spacing, to_ras(ordered)
    thin = 2 - int(turn[2, 0])  # the new number of the axis that a flat image lacks
    # From columns to slices: the two axes that there are, and then the one that there is not.
    at = [*(axis for axis in range(3) if axis != 2 - thin), 2 - thin, 3]
    return np.squeeze(stored, thin), spacing[:thin] + spacing[thin + 1 :], to_ras(ordered)[:, at]
