"""Geometry of one slice: pixel spacing, position, orientation, and the affine from indices to mm."""

import math
from dataclasses import dataclass
from operator import mul

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import Attributes

Matrix = NDArray[np.float64]

COSINE_TOLERANCE = 1e-3
"""How far two direction cosines may be from length 1 and from a right angle: some scanners write four decimals."""
SPACING_MM = (1e-5, 1e4)
"""The pixel spacings that can be meant, from beneath a microscope's to above a body's; others are damage."""
POSITION_MM = 1e6
"""The farthest position that can be meant; beyond it single steps drown in rounding."""

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
"""Attributes that give the spacing, the best first. Only the first is measured in the patient (PS3.3 10.7.1.3); the
second is that at the detector, where everything is magnified, the third that of a scanned film; the last is a ratio."""


@dataclass(frozen=True, slots=True)
class Spacing:
    """The distance of neighbouring rows and of neighbouring columns, and which of SPACINGS gave it.

    In mm; relative to each other where `source` is PixelAspectRatio; 1 and 1 where it is None.
    """

    row_mm: float
    column_mm: float
    source: str | None


def pixel_spacing(attributes: Attributes) -> Spacing:
    """Return the spacing from the first of SPACINGS that is present and possible.

    Each is a pair: the distance between the centres of adjacent rows (vertical) comes first, that of adjacent
    columns second (PS3.3 10.7.1.3), and so are the vertical and the horizontal size of PixelAspectRatio
    (PS3.3 C.7.6.3.1.7). A value that is no pair of possible lengths counts as absent.

    >>> pixel_spacing({"PixelSpacing": (0.3, 0.25)})
    Spacing(row_mm=0.3, column_mm=0.25, source='PixelSpacing')
    """
    lower, upper = SPACING_MM
    for keyword in SPACINGS:
        pair = numbers(attributes, keyword, 2)
        if pair and all(lower <= value <= upper for value in pair):
            return Spacing(pair[0], pair[1], keyword)
    return Spacing(1.0, 1.0, None)


def position(attributes: Attributes) -> tuple[float, ...] | None:
    """Return the centre of the first pixel, (x, y, z) in mm, LPS (PS3.3 C.7.6.2.1.1); None where it is not given."""
    point = numbers(attributes, "ImagePositionPatient", 3)
    return point if point and max(map(abs, point)) <= POSITION_MM else None


def orientation(attributes: Attributes) -> tuple[float, ...] | None:
    """Return the six cosines: the direction of a row, then that of a column (PS3.3 C.7.6.2.1.1); None where absent."""
    return numbers(attributes, "ImageOrientationPatient", 6)


def is_orthonormal(cosines: tuple[float, ...]) -> bool:
    """Return whether two directions have length 1 and are at a right angle, within COSINE_TOLERANCE.

    >>> is_orthonormal((1, 0, 0, 0, 1, 0)), is_orthonormal((1, 0, 0, 0.1, 1, 0))
    (True, False)
    """
    row, column = cosines[:3], cosines[3:]
    if max(map(abs, cosines)) > 1 + COSINE_TOLERANCE:
        return False
    right = abs(sum(map(mul, row, column))) <= COSINE_TOLERANCE
    return right and all(abs(math.hypot(*one) - 1) <= COSINE_TOLERANCE for one in (row, column))


def normal(cosines: Matrix) -> Matrix:
    """Return the unit vector (3,) that completes the six cosines of an orientation to a right-handed frame.

    >>> normal(np.array([1.0, 0, 0, 0, 1, 0]))
    array([0., 0., 1.])
    """
    # By hand: np.cross takes ten times as long, and a series may be cut into many small parts.
    x, y, z, u, v, w = cosines.tolist()
    across = np.array([y * w - z * v, z * u - x * w, x * v - y * u])
    return across / math.hypot(*across)


def affine(cosines: Matrix, spacing: Spacing, first_mm: Matrix, step_mm: Matrix) -> Matrix:
    """Return the (4, 4) matrix from (column, row, slice, 1) to (x, y, z, 1) in mm, LPS: PS3.3 C.7.6.2.1.1.

    A step along a row moves to the next column, so the row's direction goes with the spacing of columns.
    `first_mm` is the position of the first slice, `step_mm` the way (3,) from one slice to the next; where that
    is not along the normal, the volume is sheared.
    """
    matrix = np.eye(4)
    matrix[:3, 0] = cosines[:3] * spacing.column_mm
    matrix[:3, 1] = cosines[3:] * spacing.row_mm
    matrix[:3, 2] = step_mm
    matrix[:3, 3] = first_mm
    return matrix


def plane_axes(attributes: Attributes) -> Matrix | None:
    """Return the affine (4, 4) of one slice but for its position, the third column being the unit normal, or None.

    None where the orientation is absent or damaged, or where the spacing is not in mm.
    """
    cosines, spacing = orientation(attributes), pixel_spacing(attributes)
    if cosines is None or not is_orthonormal(cosines) or spacing.source in (None, "PixelAspectRatio"):
        return None
    turned = np.array(cosines)
    return affine(turned, spacing, np.zeros(3), normal(turned))


def slice_affine(attributes: Attributes, axes: Matrix | None = None) -> Matrix | None:
    """Return the affine (4, 4) of one slice, or None where it is not known; `axes` are its `plane_axes`, if at hand."""
    first_mm = position(attributes)
    if first_mm is None or (axes is None and (axes := plane_axes(attributes)) is None):
        return None
    matrix = axes.copy()
    matrix[0, 3], matrix[1, 3], matrix[2, 3] = first_mm
    return matrix


def to_ras(matrix: Matrix) -> Matrix:
    """Return the affine from indices to mm in NIfTI's frame: x and y point the other way than in DICOM's.

    >>> to_ras(np.eye(4)).diagonal()
    array([-1., -1.,  1.,  1.])
    """
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def numbers(attributes: Attributes, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return an attribute of exactly `count` numbers, or None."""
    value = attributes.get(keyword)
    return value if isinstance(value, tuple) and len(value) == count else None
