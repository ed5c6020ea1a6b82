"""Peek at mask files: what each is, its size and its classes, without an image that it is of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.read_picture_mask import picture_values
from imaging.annotations.masks.read_rtstruct import RTSTRUCT, open_rtstruct
from imaging.annotations.masks.read_seg import SEGMENTATIONS, open_seg
from imaging.dicom.attributes import text
from imaging.dicom.dicom_object import open_object
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading
from imaging.errors import DataFault
from imaging.file_io import FileBuffer
from imaging.sandbox.messages import Blob

FUNCTION = "imaging.annotations.masks.peek_mask:peek_masks"
NIFTI_VALUES = "imaging.annotations.masks.read_nifti_mask:nifti_values"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPeek:
    """What a file of masks is by itself, or the reason why it is refused.

    `sizes` are rows and columns, of NIfTI all three; a structure set has none. `classes` have a pixel, a segment or a
    region; `others` are the names of segments and regions that are no class.
    """

    kind: str = ""
    sizes: Sequence[int] = ()
    classes: Sequence[int] = ()
    others: Sequence[str] = ()
    reason: str = ""


def peek_masks(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Blob]]:
    """Return what some files of masks are, each of its `formats`; a `Function` of the sandbox."""
    classes = MaskClasses.from_json(setup["classes"])
    return [
        asdict(_peek(form, blob, classes)) for form, blob in zip(value["formats"], blobs, strict=True)
    ], ()


def _peek(form: str, blob: bytes | Path, classes: MaskClasses) -> MaskPeek:
    try:
        return PEEKS[form](FileBuffer().load(blob, LIMITS.file_bytes), classes)
    except DataFault as fault:
        return MaskPeek(reason=fault.reason)


def _peek_dicom(content: bytes | memoryview, classes: MaskClasses) -> MaskPeek:
    opened = open_object(content)
    sop_class = text(opened.attributes, "SOPClassUID")
    dataset = opened.dataset or parse(content)
    if sop_class in SEGMENTATIONS:
        one = open_seg(opened, classes)
        layout = one.frames.layout
        names = _names(dataset, "SegmentSequence", "SegmentLabel")
        drawn, kind, sizes = {*one.class_of.values()}, f"SEG {one.kind}", (layout.rows, layout.columns)
        return MaskPeek(kind=kind, sizes=sizes, classes=sorted(drawn), others=_others(names, classes))
    if sop_class == RTSTRUCT:
        regions = open_rtstruct(dataset, classes).regions
        names = _names(dataset, "StructureSetROISequence", "ROIName")
        drawn = {region.value for region in regions if region.contours}
        return MaskPeek(kind="RTSTRUCT", classes=sorted(drawn), others=_others(names, classes))
    raise DataFault("unsupported", "a DICOM object that is no segmentation and no structure set")


def _names(dataset: Any, sequence: str, name: str) -> dict[int, str]:
    with reading("unreadable", sequence):
        return dict(enumerate(str(item.get(name, "")) for item in dataset.get(sequence) or []))


def _others(names: Mapping[int, str], classes: MaskClasses) -> list[str]:
    return sorted({names[number] for number in names.keys() - classes.numbers_of(names).keys()})


def _peek_values(
    kind: str,
    values: Callable[[bytes | memoryview], Any] | str,
    content: bytes | memoryview,
    classes: MaskClasses,
) -> MaskPeek:
    read = resolve_name(values) if isinstance(values, str) else values
    stored = read(content)
    drawn = classes.numbers.intersection(np.unique(classes.of_values(stored)).tolist())
    return MaskPeek(kind=kind, sizes=stored.shape, classes=sorted(drawn))


PEEKS: Mapping[str, Callable[[bytes | memoryview, MaskClasses], MaskPeek]] = {
    "dicom": _peek_dicom,
    # By name: nibabel takes a quarter of a second, and most masks are not NIfTI.
    "nifti": partial(_peek_values, "NIfTI", NIFTI_VALUES),
    "picture": partial(_peek_values, "PNG", picture_values),
}
"""By the format of a file, as `imaging.sources.protocol.format_of` tells it by its name."""
