"""Reader of DICOM SEG: binary, fractional and label map segmentations (PS3.3 A.51 and C.8.20)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask
from imaging.annotations.masks.placement import Stored, other_grid, placement
from imaging.dicom.attributes import text
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.frames import Frames, frames_of
from imaging.dicom.parse import reading
from imaging.dicom.pixel_length import check_present
from imaging.errors import DataFault
from imaging.image.source_grid import Affine

BINARY_OR_FRACTIONAL, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
"""Segmentation Storage, and Label Map Segmentation Storage (PS3.4 B.5)."""
SEGMENTATIONS = frozenset({BINARY_OR_FRACTIONAL, LABEL_MAP})
TYPES: Mapping[str, frozenset[str]] = {
    BINARY_OR_FRACTIONAL: frozenset({"BINARY", "FRACTIONAL"}),
    LABEL_MAP: frozenset({"LABELMAP"}),
}
"""Values of SegmentationType (0062,0001) of each class, PS3.3 C.8.20.2."""
SEGMENT = "ReferencedSegmentNumber"
INSIDE = 0.5
"""From this share of MaximumFractionalValue on a pixel of a fractional segment is of its class."""


@dataclass(frozen=True, slots=True, eq=False)
class SegFrame:
    """One frame of a class that is read: its number and class (0 of a label map), where it lies, and its sources.

    The sources are UID and frames of each image that it is derived from (PS3.3 C.7.6.16.2.6).
    """

    number: int
    value: int
    affine: Affine | None
    sources: Sequence[tuple[str, Sequence[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegObject:
    """An object that is open, for the masks of one image or of many.

    `class_of` are the classes of the segment numbers that are read, `described` are all numbers of the object; `most`
    is MaximumFractionalValue.
    """

    frames: Frames
    dataset: Dataset
    kind: str
    classes: MaskClasses
    class_of: Mapping[int, int]
    described: frozenset[int]
    most: int
    read: Sequence[SegFrame]


Placed = tuple[SegFrame, int, Callable[[Stored], Stored]]
"""A frame, its slice in the image, and what turns its pixels."""


def seg_mask(one: SegObject, target: MaskTarget) -> SourceMask:
    """Return the mask of an image.

    A class without a segment of its name is unknown; one whose segment has no frame in the image is absent, as frames
    without a pixel may be left out (PS3.3 C.8.20.2). Frames are put where their position says or, where the image has
    none, where the image that they are derived from is. Raises DataFault "mask-segments", "mask-grid",
    "mask-values", "mask-frame-of-reference" and as the reader of images does.
    """
    if not _names(one.dataset, target):
        target.check_frame_of_reference(text(one.frames.opened.attributes, "FrameOfReferenceUID"))
    mask = np.zeros(target.grid.size, np.uint8)
    # A class comes out on top of those before it.
    placed = sorted(_placed(one, target), key=lambda each: each[0].value)
    if one.kind == "LABELMAP":
        _paint_labels(mask, one, placed)
    elif one.kind == "FRACTIONAL":
        _paint_fractions(mask, one, placed)
    else:
        for frame, number, turned in placed:
            mask[number][turned(one.frames.stored(frame.number)) != 0] = frame.value
    drawn = frozenset(one.class_of.values())
    return SourceMask(mask.reshape(target.grid.shape), one.classes.numbers - drawn)


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


def open_seg(opened: DicomObject, classes: MaskClasses) -> SegObject:
    """Return a segmentation that is open; raise DataFault "mask-empty", "mask-segments", "unsupported" and others."""
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
    labels = dict(segments)
    if len(labels) < len(segments):
        raise DataFault("mask-segments", f"{len(segments)} segments have {len(labels)} different numbers")
    frames = frames_of(opened)
    check_present(opened, frames.layout)
    if frames.layout.samples != 1:
        raise DataFault("unsupported", "a segmentation of colours")
    opened.check_groups(frames.layout.frames)
    class_of, described = classes.numbers_of(labels), frozenset(labels)
    return SegObject(
        frames=frames,
        dataset=dataset,
        kind=kind,
        classes=classes,
        class_of=class_of,
        described=described,
        most=most,
        read=[*_frames(frames, kind, class_of, described)],
    )


def _frames(
    frames: Frames, kind: str, class_of: Mapping[int, int], described: frozenset[int]
) -> Iterator[SegFrame]:
    """Yield the frames of classes that are read."""
    for number in range(frames.layout.frames):
        with reading("unreadable", "a functional group"):
            groups = frames.opened.macros(number)
            sources = [*_sources(groups)]
            segment = next((int(one.ReferencedSegmentNumber) for one in groups if SEGMENT in one), None)
        if kind == "LABELMAP":
            segment = 0
        elif segment is None or segment not in described:
            raise DataFault(
                "mask-segments", f"a frame is of segment {segment}, which SegmentSequence does not describe"
            )
        elif segment not in class_of:
            continue
        affine = frames.affine(number, frames.opened.frame_attributes(number))
        yield SegFrame(number, class_of.get(segment, 0), affine, sources)


def _sources(groups: Sequence[Dataset]) -> Iterator[tuple[str, Sequence[int]]]:
    for group in groups:
        for source in group.get("SourceImageSequence") or []:
            frames = source.get("ReferencedFrameNumber")
            yield (
                str(source.ReferencedSOPInstanceUID),
                [int(n) for n in np.atleast_1d(frames)] if frames else [],
            )


def _placed(one: SegObject, target: MaskTarget) -> list[Placed]:
    """Return the frames that lie in the image."""
    size, slices = (1, one.frames.layout.rows, one.frames.layout.columns), target.grid.size[0]
    places = [(frame, _place(frame, size, target)) for frame in one.read]
    placed = [(frame, *place) for frame, place in places if place is not None and 0 <= place[0] < slices]
    if places and all(place is None for _, place in places):
        raise other_grid(size, target.grid)
    if places and not placed and len(target.grid.shape) == 3:
        raise DataFault(
            "mask-grid", f"none of the {len(places)} frames of the mask lies in a slice of the volume"
        )
    return placed


def _place(
    frame: SegFrame, size: tuple[int, int, int], target: MaskTarget
) -> tuple[int, Callable[[Stored], Stored]] | None:
    """Return the slice of a frame and what turns its pixels, or None where it lies on another grid."""
    if frame.affine is not None and target.grid.affine is not None:
        lying = placement(size, frame.affine, target.grid)
        return None if lying is None else (lying.first, lambda stored: lying.turned(stored[None])[0])
    at = _named_slice(frame.sources, target)
    if at is None:
        raise DataFault(
            "mask-grid",
            "a frame of the mask names no slice of its image, and one of them does not say where it lies",
        )
    return (at, lambda stored: stored) if size[1:] == target.grid.size[1:] else None


def _named_slice(sources: Sequence[tuple[str, Sequence[int]]], target: MaskTarget) -> int | None:
    """Return the slice that is named; a frame of an image that is not this one counts as outside (-1)."""
    if not target.instances or not sources:
        return None
    for uid, frames in sources:
        if uid in target.instances and (not target.frame or not frames or target.frame in frames):
            return target.instances.index(uid)
    return -1 if len(target.grid.shape) == 2 else None


def _paint_labels(mask: NDArray[np.uint8], one: SegObject, placed: Sequence[Placed]) -> None:
    with reading("unreadable", "PixelPaddingValue"):
        padding = one.dataset.get("PixelPaddingValue")
        known = {0, *one.described, *([] if padding is None else [int(padding)])}
    for frame, number, turned in placed:
        stored = turned(one.frames.stored(frame.number))
        for value in np.unique(stored).tolist():
            if value not in known:
                raise DataFault(
                    "mask-segments", f"pixels are of segment {value}, which SegmentSequence does not describe"
                )
            if value in one.class_of:
                mask[number][stored == value] = one.class_of[value]


def _paint_fractions(mask: NDArray[np.uint8], one: SegObject, placed: Sequence[Placed]) -> None:
    """Give each pixel the class of the largest fraction that is at least INSIDE, of equal ones the last class."""
    if not 0 < one.most <= 255:
        raise DataFault("undecodable", f"MaximumFractionalValue is {one.most}, 1 to 255 is possible")
    largest = np.full(mask.shape, int(np.ceil(INSIDE * one.most)), np.uint8)
    for frame, number, turned in placed:
        fractions = turned(one.frames.stored(frame.number))
        if int(fractions.max()) > one.most:
            raise DataFault("mask-values", f"a fraction is above MaximumFractionalValue, {one.most}")
        here = largest[number]
        better = fractions >= here
        here[better] = fractions[better]
        mask[number][better] = frame.value
