"""Synthetic headers of slices for tests of volumes, and helpers that describe the result."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imaging.dicom.geometry import Attributes
from imaging.dicom.stacking import SliceStack, Stacking

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.36, 0.48, -0.6, 0.48, 0.64)
ORIENTATIONS = [AXIAL, SAGITTAL, CORONAL, OBLIQUE]


def one(z: float, cosines: Sequence[float] = AXIAL, **changes: Any) -> dict[str, Any]:
    """Return a slice at `z` mm along its normal; None takes an attribute out."""
    unit = np.cross(cosines[:3], cosines[3:])
    plain = {
        "SeriesInstanceUID": "1.2",
        "ImageOrientationPatient": tuple(map(float, cosines)),
        "ImagePositionPatient": tuple((np.array([-100.0, -50, 20]) + z * unit).tolist()),
        "PixelSpacing": (0.5, 0.25),
        "Rows": (64.0,),
        "Columns": (32.0,),
    }
    return {name: value for name, value in (plain | changes).items() if value is not None}


def series(*at: float, cosines: Sequence[float] = AXIAL, **changes: Any) -> list[dict[str, Any]]:
    """Return slices at positions along the normal, numbered as they come."""
    return [one(z, cosines, InstanceNumber=(float(n),), **changes) for n, z in enumerate(at, 1)]


def only(stacking: Stacking) -> SliceStack:
    """Return the one volume that there is."""
    assert len(stacking.stacks) == 1
    return stacking.stacks[0]


def codes(stacking: Stacking) -> set[str]:
    """Return the codes of all findings."""
    return {finding.code for stack in stacking.stacks for finding in stack.findings}


def detail(stacking: Stacking, code: str) -> str:
    """Return what the first finding of a code says."""
    return next(f.detail for stack in stacking.stacks for f in stack.findings if f.code == code)


def orders(stacking: Stacking) -> set[frozenset[int]]:
    """Return which slices came together."""
    return {frozenset(stack.order) for stack in stacking.stacks}


def seen(stacking: Stacking) -> list[object]:
    """Return all that can be seen of volumes but which slice is which."""
    return [(s.places, s.affine.tolist(), s.spacing_mm, s.findings, s.label) for s in stacking.stacks]


def off_mm(stacked: SliceStack, slices: Sequence[Attributes]) -> float:
    """Return how far the affine puts first pixels from where the slices say that they are."""
    stated = np.array([slices[n]["ImagePositionPatient"] for n in stacked.order], float)
    put = np.array([stacked.affine @ (0, 0, k, 1) for k in stacked.places])[:, :3]
    return float(np.abs(stated - put).max())


def tilt(degrees: float) -> list[dict[str, Any]]:
    """Return a series whose table moves at an angle to the normal."""
    down = np.tan(np.radians(degrees))
    return [one(5.0 * n, ImagePositionPatient=(0.0, 5.0 * n * down, 5.0 * n)) for n in range(4)]
