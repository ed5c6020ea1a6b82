"""Reader of RTSTRUCT: closed contours of regions become areas of the slices in which they lie (PS3.3 C.8.8.6)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from imaging.annotations.masks.contours import Points, inside_contours
from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask
from imaging.dicom.attributes import parts_of
from imaging.dicom.geometry import POSITION_MM
from imaging.dicom.parse import reading
from imaging.errors import DataFault

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
"""RT Structure Set Storage (PS3.4 B.5)."""
CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
"""Types of contours that enclose an area (PS3.3 C.8.8.6.1); points and open lines do not."""
CONTOUR_DATA = 0x30060050
IN_PLANE = 0.25
"""How far a contour may be from the plane of its slice, in slices; in mm where the image is one slice alone."""

Planes = dict[int, list[Points]]


@dataclass(slots=True)
class DrawnRegion:
    """Contours of one region, by slice, and how many have their slice outside of the image."""

    planes: Planes = field(default_factory=dict)
    absent: int = 0


def read_rtstruct(dataset: Dataset, target: MaskTarget, classes: MaskClasses) -> SourceMask:
    """Return the mask of an image.

    A class without a region of its name is unknown, and so is one whose regions have no contour at all: templates
    name regions that nobody drew. Raises DataFault "mask-absent-slice" where a contour of a volume lies in no slice of
    it, "mask-grid" where one crosses slices, "mask-empty", "mask-segments", "mask-frame-of-reference" and
    "no-geometry".
    """
    if target.grid.affine is None:
        raise DataFault("no-geometry", "the image does not say where it lies, and contours are in mm")
    to_index = np.asarray(np.linalg.inv(target.grid.affine), np.float64)
    slices, rows, columns = target.grid.size
    mask = np.zeros(target.grid.size, np.uint8)
    drawn: dict[int, list[DrawnRegion]] = {}
    for value, contours in _regions(dataset, target, classes):
        region = _region(contours, to_index, target)
        if region.absent and len(target.grid.shape) == 3:
            raise DataFault(
                "mask-absent-slice",
                f"{region.absent} contours of a region lie in slices that the volume of {slices} does not have",
            )
        if region.planes or region.absent:
            drawn.setdefault(value, []).append(region)
    for value in sorted(drawn):
        for region in drawn[value]:
            for number, points in region.planes.items():
                mask[number][inside_contours(points, rows, columns)] = value
    return SourceMask(mask.reshape(target.grid.shape), classes.numbers - drawn.keys())


def _regions(
    dataset: Dataset, target: MaskTarget, classes: MaskClasses
) -> Iterator[tuple[int, list[Dataset]]]:
    """Yield the class of each region that is read, and its contours."""
    with reading("unreadable", "the structure set"):
        items = list(dataset.get("StructureSetROISequence") or [])
        names = [(int(item.ROINumber), str(item.get("ROIName", ""))) for item in items]
        frames = {
            number: str(item.get("ReferencedFrameOfReferenceUID", ""))
            for (number, _), item in zip(names, items, strict=True)
        }
        contours = [
            (int(item.ReferencedROINumber), list(item.get("ContourSequence") or []))
            for item in dataset.get("ROIContourSequence") or []
        ]
    if not names or not any(some for _, some in contours):
        raise DataFault("mask-empty", f"the structure set names {len(names)} regions and has no contour")
    listed = {"regions": [number for number, _ in names], "contours": [number for number, _ in contours]}
    for what, numbers in listed.items():
        if len({*numbers}) < len(numbers):
            raise DataFault("mask-segments", f"several {what} of the structure set have one ROI number")
    class_of = {number: classes.number_of(name) for number, name in names}
    for number, some in contours:
        if number not in class_of:
            raise DataFault("mask-segments", f"contours are of region {number}, which has no name")
        value = class_of[number]
        if value is not None:
            target.check_frame_of_reference(frames[number])
            yield value, some


def _region(contours: list[Dataset], to_index: NDArray[np.float64], target: MaskTarget) -> DrawnRegion:
    region = DrawnRegion()
    for contour in contours:
        with reading("unreadable", "a contour"):
            if str(contour.get("ContourGeometricType", "")) not in CLOSED:
                continue
            uids = [str(item.ReferencedSOPInstanceUID) for item in contour.get("ContourImageSequence") or []]
            points_mm = _points(contour)
        number = _slice(points_mm, to_index, target, uids)
        if number is None:
            region.absent += 1
        else:
            points = (points_mm @ to_index[:3, :3].T + to_index[:3, 3])[:, :2]
            region.planes.setdefault(number, []).append(points)
    return region


def _points(contour: Dataset) -> NDArray[np.float64]:
    """Return the points (n, 3) in mm, LPS; raise DataFault "undecodable" where they are none."""
    raw = contour.get_item(CONTOUR_DATA)
    # Parsed here: pydicom makes an object of some hundred bytes of each number.
    value: Any = raw.value if isinstance(raw, RawDataElement) else contour[CONTOUR_DATA].value
    parts = bytes(value).rstrip(b" \0").split(b"\\") if isinstance(value, bytes) else list(parts_of(value))
    numbers = np.array(parts).astype(np.float64)
    if len(numbers) % 3 or len(numbers) < 9 or not (np.abs(numbers) <= POSITION_MM).all():
        raise DataFault(
            "undecodable", f"a contour has {len(numbers)} numbers, or one that is no place in the patient"
        )
    return numbers.reshape(-1, 3)


def _slice(
    points_mm: NDArray[np.float64], to_index: NDArray[np.float64], target: MaskTarget, uids: list[str]
) -> int | None:
    """Return the slice in which a contour lies, None where the image does not have it.

    Where the contour names its image and the slices are known by name, that must be one of them.
    """
    if uids and target.instances and not {*uids} & {*target.instances}:
        return None
    depth = points_mm @ to_index[2, :3] + to_index[2, 3]
    number = int(np.rint(np.median(depth)))
    if np.ptp(depth) > 2 * IN_PLANE:
        raise DataFault(
            "mask-grid", "a contour does not lie in a slice: it crosses them; draw it on this series"
        )
    if uids and target.instances and len(target.grid.shape) == 2:
        # It names the image: the next slice may be nearer than the digits of positions.
        return 0
    lies = 0 <= number < target.grid.size[0] and np.abs(depth - number).max() <= IN_PLANE
    return number if lies else None
