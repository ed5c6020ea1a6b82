"""Frames of an object as slices: their stored values, and where each lies.

Most are frames of their own. The tiles of a mosaic are frames too, and some classes give one position for all frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import NuclearMedicineImageStorage, RTDoseStorage

from imaging.dicom.attributes import Attributes, Value, first, of_dataset, parts_of, quietly, text
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.geometry import Matrix, is_orthonormal, normal, orientation, position, slice_affine
from imaging.dicom.mosaic import Mosaic, mosaic_of
from imaging.dicom.parse import reading
from imaging.dicom.pixels import Layout, layout_of, stored_frame
from imaging.errors import DataFault

SAME_MM = 0.01
"""Positions nearer than this are equal: they are often written with two decimals."""
RECONSTRUCTED = ("RECON TOMO", "RECON GATED TOMO")
"""Values 3 of ImageType of NM whose frames are slices of a volume (PS3.3 C.8.4.15); those of others are projections."""
TIMES = 2**16
"""More than any index of 16 bits: two of them make one number."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames of an object that is open; a mosaic is decoded once for all of its tiles."""

    opened: DicomObject
    layout: Layout
    mosaic: Mosaic | None = None

    @property
    def count(self) -> int:
        """The number of slices."""
        return self.layout.frames if self.mosaic is None else self.mosaic.count

    @cached_property
    def _whole(self) -> NDArray[Any]:
        whole = stored_frame(self.opened, self.layout, 0)
        if self.mosaic is not None:
            self.mosaic.check_rest(whole)
        return whole

    def stored(self, index: int) -> NDArray[Any]:
        """Return the stored values of one slice, see `stored_frame`."""
        if self.mosaic is None:
            return stored_frame(self.opened, self.layout, index)
        return self.mosaic.tile(self._whole, index)

    def slice_attributes(self) -> list[Attributes]:
        """Return the attributes of each slice, with its own position where it has one.

        Raises DataFault "no-geometry" where several frames share one position of the whole object.
        """
        attributes, count = self.opened.attributes, self.count
        if self.mosaic is not None:
            return [self.mosaic.slice_attributes(attributes, n) for n in range(count)]
        frames = [self.opened.frame_attributes(n) for n in range(count)]
        shared = attributes.get("ImagePositionPatient")
        # Functional groups give a frame another value, even if it is equal: only their positions are of one frame.
        own = [one.get("ImagePositionPatient") is not shared for one in frames]
        if count == 1 or all(own):
            return frames
        if any(own):
            return [
                one if placed else {**one, "ImagePositionPatient": ()}
                for one, placed in zip(frames, own, strict=True)
            ]
        places = self._places
        if places is None:
            raise DataFault(
                "no-geometry",
                f"the object gives one position at most for its {count} frames, and no rule for the rest",
            )
        return [{**one, **more} for one, more in zip(frames, places, strict=True)]

    def affine(self, index: int, attributes: Attributes) -> Matrix | None:
        """Return the affine of one slice, or None where it is not known.

        `attributes` are `DicomObject.frame_attributes` of the slice.
        """
        if self.mosaic is not None:
            return slice_affine(self.mosaic.slice_attributes(attributes, index))
        shared = self.opened.attributes.get("ImagePositionPatient")
        if self.count == 1 or attributes.get("ImagePositionPatient") is not shared:
            return slice_affine(attributes)
        return slice_affine({**attributes, **self._places[index]}) if self._places else None

    @cached_property
    def _places(self) -> "Places | None":
        """Where the frames lie by the rule of their class, which gives one position for all; None without a rule."""
        place = PLACES.get(text(self.opened.attributes, "SOPClassUID"))
        with reading("unreadable"):
            return place(self.opened, self.count) if place else None


def frames_of(opened: DicomObject) -> Frames:
    """Return the frames of an object; raises DataFault as `layout_of` and `mosaic_of` do."""
    layout = layout_of(opened.attributes)
    return Frames(opened=opened, layout=layout, mosaic=mosaic_of(opened, layout))


Places = Sequence[Mapping[str, Value]]
"""What is to be known of each frame beside the attributes of the object."""


def _dose_places(opened: DicomObject, count: int) -> Places | None:
    """Return the planes of a dose by Grid Frame Offset Vector, PS3.3 C.8.8.3.2: relative, or absolute in z."""
    offsets = _vector(opened.dataset, "GridFrameOffsetVector", count)
    cosines, corner = orientation(opened.attributes), position(opened.attributes)
    if offsets is None or cosines is None or corner is None or not is_orthonormal(cosines):
        return None
    steps = np.diff(offsets)
    if not ((steps > 0).all() or (steps < 0).all()):
        return None
    if offsets[0] != 0:
        if abs(offsets[0] - corner[2]) > SAME_MM or cosines != (1, 0, 0, 0, 1, 0):
            return None
        offsets = offsets - offsets[0]
    return _along(corner, cosines, offsets)


def _slice_places(opened: DicomObject, count: int) -> Places | None:
    """Return the slices of reconstructed NM by Slice Vector and Spacing Between Slices, PS3.3 C.8.4.8 and C.8.4.15.

    The sign of the spacing is the direction along the normal of the first slice. Times of a gated one become
    TemporalPositionIndex. The position is in the only item of the detectors (PS3.3 C.8.4.11).
    """
    dataset, flavor = opened.dataset, text(opened.attributes, "ImageType").split("\\")[2:3]
    slices, step = _vector(dataset, "SliceVector", count), first(opened.attributes, "SpacingBetweenSlices")
    detectors = quietly(lambda: list(dataset["DetectorInformationSequence"].value)) if dataset else None
    if flavor not in ([one] for one in RECONSTRUCTED) or slices is None or not step or not detectors:
        return None
    detector = quietly(lambda: of_dataset(detectors[0])) or {}
    cosines, corner = orientation(detector), position(detector)
    if len(detectors) > 1 or cosines is None or corner is None or not is_orthonormal(cosines):
        return None
    places = _along(corner, cosines, (slices - 1) * step)
    beats, slots = (_vector(dataset, name, count) for name in ("RRIntervalVector", "TimeSlotVector"))
    if beats is None or slots is None:
        return places
    times = beats * TIMES + slots
    return [
        {**one, "TemporalPositionIndex": (time,)} for one, time in zip(places, times.tolist(), strict=True)
    ]


PLACES: Mapping[str, Callable[[DicomObject, int], Places | None]] = {
    RTDoseStorage: _dose_places,
    NuclearMedicineImageStorage: _slice_places,
}
"""Classes that give one position for all frames, and a rule for the rest; no other class does."""


def _along(
    corner: tuple[float, ...], cosines: tuple[float, ...], offsets_mm: Matrix
) -> list[dict[str, Value]]:
    points = np.array(corner) + offsets_mm[:, None] * normal(np.array(cosines))
    return [
        {"ImagePositionPatient": tuple(point), "ImageOrientationPatient": cosines}
        for point in points.tolist()
    ]


def _vector(dataset: Dataset | None, keyword: str, count: int) -> Matrix | None:
    """Return an attribute with a number for each frame, or None."""
    if dataset is None or keyword not in dataset:
        return None
    value = quietly(lambda: np.array([*parts_of(dataset[keyword].value)], np.float64))
    usable = value is not None and value.shape == (count,) and bool(np.isfinite(value).all())
    return value if usable else None
