"""Reader of DICOM SEG: binary, fractional and label map segmentations (PS3.3 A.51 and C.8.20)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask
from imaging.annotations.masks.placement import other_grid, placement
from imaging.dicom.attributes import Attributes, text
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.frames import Frames, frames_of
from imaging.dicom.parse import reading
from imaging.dicom.pixel_length import check_present
from imaging.errors import DataFault

BINARY_OR_FRACTIONAL, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
"""Segmentation Storage, and Label Map Segmentation Storage (PS3.4 B.5)."""
SEGMENTATIONS = frozenset({BINARY_OR_FRACTIONAL, LABEL_MAP})
TYPES: Mapping[str, frozenset[str]] = {
    BINARY_OR_FRACTIONAL: frozenset({"BINARY", "FRACTIONAL"}),
    LABEL_MAP: frozenset({"LABELMAP"}),
}
"""Values of SegmentationType (0062,0001) of each class, PS3.3 C.8.20.2."""
INSIDE = 0.5
"""From this share of MaximumFractionalValue on a pixel of a fractional segment is of its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """An object that is open: its frames, the class of each segment number that is read, and its type.

    `described` are all segment numbers of the object; `most` is MaximumFractionalValue.
    """

    frames: Frames
    dataset: Dataset
    kind: str
    class_of: Mapping[int, int]
    described: frozenset[int]
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFrame:
    """One frame that lies in the image: in which slice, its class (0 of a label map), and its turned pixels' reader."""

    number: int
    slice: int
    value: int
    turned: Any


def read_seg(opened: DicomObject, target: MaskTarget, classes: MaskClasses) -> SourceMask:
    """Return the mask of an image.

    A class without a segment of its name is unknown; one whose segment has no frame in the image is absent, as frames
    without a pixel may be left out (PS3.3 C.8.20.2). Frames are put where their position says or, where the image has
    none, where the image that they are derived from is. Raises DataFault "mask-empty", "mask-segments", "mask-grid",
    "mask-frame-of-reference", "unsupported" and as the reader of images does.
    """
    one = _open(opened, classes)
    if not _names(one.dataset, target):
        target.check_frame_of_reference(text(opened.attributes, "FrameOfReferenceUID"))
    mask = np.zeros(target.grid.size, np.uint8)
    placed = list(_placed(one, target))
    if one.kind == "LABELMAP":
        _paint_labels(mask, one, placed)
    elif one.kind == "FRACTIONAL":
        _paint_fractions(mask, one, placed)
    else:
        # A class comes out on top of those before it.
        for frame in sorted(placed, key=lambda each: each.value):
            mask[frame.slice][frame.turned(one.frames.stored(frame.number)) != 0] = frame.value
    drawn = frozenset(one.class_of.values())
    return SourceMask(mask.reshape(target.grid.shape), classes.numbers - drawn)


def _names(dataset: Dataset, target: MaskTarget) -> bool:
    """Return whether a segmentation names the image among those that it is of (PS3.3 C.12.4).

    Then positions mean the same in both: there are series with a frame of reference for each slice.
    """
    with reading("unreadable", "ReferencedSeriesSequence"):
        named = {
            str(item.ReferencedSOPInstanceUID)
            for series in dataset.get("ReferencedSeriesSequence") or []
            for item in series.get("ReferencedInstanceSequence") or []
        }
    return bool(target.instances) and named.issuperset(target.instances)


def _open(opened: DicomObject, classes: MaskClasses) -> Segmentation:
    dataset = opened.dataset
    if dataset is None or not opened.pixels or not opened.pixels[0][1]:
        raise DataFault("mask-empty", "the segmentation has no frames")
    with reading("unreadable", "the segmentation"):
        kind, sop_class = str(dataset.get("SegmentationType", "")), text(opened.attributes, "SOPClassUID")
        items = list(dataset.get("SegmentSequence") or [])
        segments = [(int(item.SegmentNumber), str(item.get("SegmentLabel", ""))) for item in items]
        most = int(dataset.get("MaximumFractionalValue") or 255)
        count = int(dataset.get("NumberOfFrames") or 0)
    if kind not in TYPES.get(sop_class, frozenset()):
        raise DataFault(
            "unsupported", "a segmentation that is not BINARY, FRACTIONAL or LABELMAP in its SOP class"
        )
    if not segments or not count:
        raise DataFault(
            "mask-empty", f"the segmentation describes {len(segments)} segments and has {count} frames"
        )
    numbers = [number for number, _ in segments]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise DataFault("mask-segments", f"several segments have the number {twice[0]}")
    frames = frames_of(opened)
    check_present(opened, frames.layout)
    opened.check_groups(frames.layout.frames)
    read = {number: classes.number_of(label) for number, label in segments}
    return Segmentation(
        frames=frames,
        dataset=dataset,
        kind=kind,
        class_of={number: value for number, value in read.items() if value is not None},
        described=frozenset(numbers),
        most=most,
    )


def _placed(one: Segmentation, target: MaskTarget) -> Iterator[PlacedFrame]:
    """Yield the frames of classes that are read and lie in the image."""
    layout, elsewhere, inside, named = one.frames.layout, 0, 0, 0
    for number in range(layout.frames):
        segment = 0 if one.kind == "LABELMAP" else _segment(one, number)
        if segment and segment not in one.described:
            raise DataFault(
                "mask-segments", f"a frame is of segment {segment}, which SegmentSequence does not describe"
            )
        if segment and segment not in one.class_of:
            continue
        named += 1
        place = _place(one, number, target)
        if place is None:
            elsewhere += 1
        elif 0 <= place[0] < target.grid.size[0]:
            inside += 1
            value = one.class_of.get(segment, 0)
            yield PlacedFrame(number=number, slice=place[0], value=value, turned=place[1])
    if elsewhere and not inside and elsewhere == named:
        raise other_grid((1, layout.rows, layout.columns), target.grid)
    if named and not inside and len(target.grid.shape) == 3:
        raise DataFault("mask-grid", f"none of the {named} frames of the mask lies in a slice of the volume")


def _segment(one: Segmentation, number: int) -> int:
    for item in one.frames.opened.macros(number):
        if "ReferencedSegmentNumber" in item:
            with reading("unreadable", "ReferencedSegmentNumber"):
                return int(item.ReferencedSegmentNumber)
    raise DataFault("mask-segments", "a frame does not say of which segment it is")


def _place(one: Segmentation, number: int, target: MaskTarget) -> tuple[int, Any] | None:
    """Return the slice of a frame and what turns its pixels, or None where it lies on another grid."""
    layout = one.frames.layout
    attributes: Attributes = one.frames.opened.frame_attributes(number)
    affine = one.frames.affine(number, attributes)
    if affine is not None and target.grid.affine is not None:
        lying = placement((1, layout.rows, layout.columns), affine, target.grid)
        if lying is None:
            return None
        return lying.first, lambda stored: lying.turned(stored[None])[0]
    at = _named_slice(_sources(one, number), target)
    if at is None:
        if target.grid.affine is None or affine is None:
            raise DataFault(
                "mask-grid",
                "a frame of the mask names no slice of its image, and one of the two does not say where it lies",
            )
        return None
    if (layout.rows, layout.columns) != target.grid.size[1:]:
        return None
    return at, lambda stored: stored


def _sources(one: Segmentation, number: int) -> list[tuple[str, Sequence[int]]]:
    """Return UID and frames of each image that a frame is derived from (PS3.3 C.7.6.16.2.6)."""
    with reading("unreadable", "DerivationImageSequence"):
        sources = [
            source
            for item in one.frames.opened.macros(number)
            for source in item.get("SourceImageSequence") or []
        ]
        frames = [source.get("ReferencedFrameNumber") for source in sources]
        return [
            (str(source.ReferencedSOPInstanceUID), [int(n) for n in np.atleast_1d(at)] if at else [])
            for source, at in zip(sources, frames, strict=True)
        ]


def _named_slice(sources: Sequence[tuple[str, Sequence[int]]], target: MaskTarget) -> int | None:
    """Return the slice that is named; a frame of an image that is not this one counts as outside (-1)."""
    if not target.instances or not sources:
        return None
    for uid, frames in sources:
        if uid in target.instances and (not target.frame or not frames or target.frame in frames):
            return target.instances.index(uid)
    return -1 if len(target.grid.shape) == 2 else None


def _paint_labels(mask: NDArray[np.uint8], one: Segmentation, placed: Sequence[PlacedFrame]) -> None:
    padding = one.dataset.get("PixelPaddingValue")
    known = {0, *one.described} | ({int(padding)} if isinstance(padding, int) else set())
    for frame in placed:
        stored = frame.turned(one.frames.stored(frame.number))
        for value in np.unique(stored).tolist():
            if value not in known:
                raise DataFault(
                    "mask-segments", f"pixels are of segment {value}, which SegmentSequence does not describe"
                )
            if value in one.class_of:
                mask[frame.slice][stored == value] = one.class_of[value]


def _paint_fractions(mask: NDArray[np.uint8], one: Segmentation, placed: Sequence[PlacedFrame]) -> None:
    """Give each pixel the class of the largest fraction that is at least INSIDE, of equal ones the last class."""
    if not 0 < one.most <= 255:
        raise DataFault("undecodable", f"MaximumFractionalValue is {one.most}, 1 to 255 is possible")
    largest = np.full(mask.shape, int(np.ceil(INSIDE * one.most)), np.uint8)
    for frame in sorted(placed, key=lambda each: each.value):
        fractions = frame.turned(one.frames.stored(frame.number))
        if int(fractions.max()) > one.most:
            raise DataFault("mask-values", f"a fraction is above MaximumFractionalValue, {one.most}")
        here = largest[frame.slice]
        better = fractions >= here
        here[better] = fractions[better]
        mask[frame.slice][better] = frame.value
