"""Reader of RTSTRUCT: closed contours of regions become areas of the slices in which they lie (PS3.3 C.8.8.6)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from imaging.annotations.masks.contours import Points, inside_contours
from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask
from imaging.dicom.attributes import parts_of
from imaging.dicom.geometry import POSITION_MM
from imaging.dicom.limits import check_limit
from imaging.dicom.parse import reading
from imaging.errors import DataFault

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
"""RT Structure Set Storage (PS3.4 B.5)."""
CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
"""Types of contours that enclose an area (PS3.3 C.8.8.6.1); points and open lines do not."""
CONTOUR_DATA = 0x30060050
IN_PLANE = 0.25
"""How far a contour may be from the plane of its slice, in slices; in mm where the image is one slice alone."""

MOST_BYTES = 2**26
"""Of the points of one contour; the longest that people draw have some ten thousand."""
NUMBER_LENGTH = 64
"""Characters of a number; PS3.5 6.2 allows 16."""


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """Closed contour: its points (n, 3) in mm, LPS, and the images that it names."""

    points_mm: NDArray[np.float64]
    images: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnRegion:
    """Region of a class that is read, with its contours and its frame of reference."""

    value: int
    frame_of_reference_uid: str
    contours: Sequence[Contour]


@dataclass(frozen=True, slots=True, eq=False)
class StructureSet:
    """Regions of a structure set that are read, for the masks of one image or of many."""

    regions: Sequence[DrawnRegion]
    classes: MaskClasses


def rtstruct_mask(one: StructureSet, target: MaskTarget) -> SourceMask:
    """Return the mask of an image.

    A class without a region of its name is unknown, and so is one whose regions have no contour at all: templates
    name regions that nobody drew. Raises DataFault "mask-absent-slice" where a contour of a volume lies in no slice of
    it, "mask-grid" where one crosses slices, "mask-frame-of-reference" and "no-geometry".
    """
    if target.grid.affine is None:
        raise DataFault("no-geometry", "the image does not say where it lies, and contours are in mm")
    to_index = np.asarray(np.linalg.inv(target.grid.affine), np.float64)
    slices, rows, columns = target.grid.size
    mask = np.zeros(target.grid.size, np.uint8)
    # A class comes out on top of those before it.
    for region in sorted(one.regions, key=lambda each: each.value):
        target.check_frame_of_reference(region.frame_of_reference_uid)
        planes: dict[int, list[Points]] = {}
        for contour in region.contours:
            number = _slice(contour, to_index, target)
            if number is not None:
                points = contour.points_mm @ to_index[:3, :3].T + to_index[:3, 3]
                planes.setdefault(number, []).append(points[:, :2])
        absent = len(region.contours) - sum(map(len, planes.values()))
        if absent and len(target.grid.shape) == 3:
            raise DataFault(
                "mask-absent-slice",
                f"{absent} contours of a region lie in slices that the volume of {slices} does not have",
            )
        for number, contours in planes.items():
            mask[number][inside_contours(contours, rows, columns)] = region.value
    drawn = {region.value for region in one.regions}
    return SourceMask(mask.reshape(target.grid.shape), one.classes.numbers - drawn)


def open_rtstruct(dataset: Dataset, classes: MaskClasses) -> StructureSet:
    """Return the regions of classes that are read; raise DataFault "mask-empty", "mask-segments" and others."""
    with reading("unreadable", "the structure set"):
        items = list(dataset.get("StructureSetROISequence") or [])
        names = [(int(item.ROINumber), str(item.get("ROIName", ""))) for item in items]
        references = [str(item.get("ReferencedFrameOfReferenceUID", "")) for item in items]
        contours = [
            (int(item.ReferencedROINumber), list(item.get("ContourSequence") or []))
            for item in dataset.get("ROIContourSequence") or []
        ]
    if not names or not any(some for _, some in contours):
        raise DataFault("mask-empty", f"the structure set names {len(names)} regions and has no contour")
    name_of = dict(names)
    if len(name_of) < len(names) or len(dict(contours)) < len(contours):
        raise DataFault("mask-segments", "several regions of the structure set have one ROI number")
    nameless = [number for number, _ in contours if number not in name_of]
    if nameless:
        raise DataFault("mask-segments", f"contours are of region {nameless[0]}, which has no name")
    frame_of = dict(zip(name_of, references, strict=True))
    class_of = classes.numbers_of(name_of)
    read = [(number, [*_closed(some)]) for number, some in contours if number in class_of]
    regions = [DrawnRegion(class_of[number], frame_of[number], some) for number, some in read if some]
    return StructureSet(regions, classes)


def _closed(contours: Sequence[Dataset]) -> Iterator[Contour]:
    for contour in contours:
        with reading("unreadable", "a contour"):
            if str(contour.get("ContourGeometricType", "")) in CLOSED:
                named = contour.get("ContourImageSequence") or []
                yield Contour(
                    _points(contour), frozenset(str(item.ReferencedSOPInstanceUID) for item in named)
                )


def _points(contour: Dataset) -> NDArray[np.float64]:
    """Return the points (n, 3) in mm, LPS; raise DataFault "undecodable" where they are none."""
    raw = contour.get_item(CONTOUR_DATA)
    # Parsed here: pydicom makes an object of some hundred bytes of each number.
    value: Any = raw.value if isinstance(raw, RawDataElement) else contour[CONTOUR_DATA].value
    if isinstance(value, bytes):
        check_limit("too-large", "the points of a contour in bytes", len(value), MOST_BYTES)
    parts = bytes(value).rstrip(b" \0").split(b"\\") if isinstance(value, bytes) else list(parts_of(value))
    check_limit("undecodable", "the length of a number", max(len(str(part)) for part in parts), NUMBER_LENGTH)
    numbers = np.array(parts).astype(np.float64)
    if len(numbers) % 3 or len(numbers) < 9 or not (np.abs(numbers) <= POSITION_MM).all():
        raise DataFault(
            "undecodable", f"a contour has {len(numbers)} numbers, or one that is no place in the patient"
        )
    return numbers.reshape(-1, 3)


def _slice(contour: Contour, to_index: NDArray[np.float64], target: MaskTarget) -> int | None:
    """Return the slice in which a contour lies, None where the image does not have it.

    Where the contour names its image and the slices are known by name, that must be one of them.
    """
    is_named = bool(contour.images and target.instances)
    if is_named and contour.images.isdisjoint(target.instances):
        return None
    depth = contour.points_mm @ to_index[2, :3] + to_index[2, 3]
    number = int(np.rint(np.median(depth)))
    if is_named and len(target.grid.shape) == 2:
        # It names the image: the next slice may be nearer than the digits of positions.
        return 0
    if np.ptp(depth) > 2 * IN_PLANE and len(target.grid.shape) == 3:
        raise DataFault(
            "mask-grid", "a contour does not lie in a slice: it crosses them; draw it on this series"
        )
    lies = 0 <= number < target.grid.size[0] and np.abs(depth - number).max() <= IN_PLANE
    return number if lies else None
