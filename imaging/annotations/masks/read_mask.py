"""Reading of masks of strangers in the sandbox: from the files of a mask to class numbers on the model's grid.

`prepare_masks` is a function of `imaging.sandbox`, as `imaging.dataset.ingest.prepare_files` is for images: it is given
the bytes of mask files beside the grid of the image that each is of, which rows of a dataset keep.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask, merged, stacked
from imaging.annotations.masks.read_picture_mask import open_picture_mask
from imaging.annotations.masks.read_rtstruct import RTSTRUCT, open_rtstruct, rtstruct_mask
from imaging.annotations.masks.read_seg import SEGMENTATIONS, open_seg, seg_mask
from imaging.dicom.attributes import text
from imaging.dicom.dicom_object import open_object
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from imaging.file_io import FileBuffer
from imaging.image.source_grid import SourceGrid
from imaging.preprocess.inverse import mask_to_model
from imaging.preprocess.spec import PreprocessSpec
from imaging.sandbox.messages import Blob
from imaging.sandbox.pool import Item

FUNCTION = "imaging.annotations.masks.read_mask:prepare_masks"

OPEN_FILES = 4
"""So many files are kept open: an image seldom has more, and each may be as large as a volume."""

MaskOf = Callable[[MaskTarget], SourceMask]
"""Function that gives the mask of an image from a file that was opened once: a file may be of a whole series."""
Opener = Callable[[bytes | memoryview, MaskClasses], MaskOf]


def open_dicom_mask(content: bytes | memoryview, classes: MaskClasses) -> MaskOf:
    """Return the masks of a SEG or an RTSTRUCT; raise DataFault "unsupported" for any other object."""
    opened = open_object(content)
    sop_class = text(opened.attributes, "SOPClassUID")
    if sop_class in SEGMENTATIONS:
        return partial(seg_mask, open_seg(opened, classes))
    if sop_class == RTSTRUCT:
        return partial(rtstruct_mask, open_rtstruct(opened.dataset or parse(content), classes))
    raise DataFault(
        "unsupported", "a DICOM object that is no segmentation (SEG) and no structure set (RTSTRUCT)"
    )


OPENERS: Mapping[str, Opener | str] = {
    "dicom": open_dicom_mask,
    # By name: nibabel takes a quarter of a second, and most masks are not NIfTI.
    "nifti": "imaging.annotations.masks.read_nifti_mask:open_nifti_mask",
    "picture": open_picture_mask,
}
"""By the format of a file, as `imaging.sources.protocol.format_of` tells it by its name."""


def open_mask(form: str, content: bytes | memoryview, classes: MaskClasses) -> MaskOf:
    """Return the masks of a file; raise DataFault with a reason of `imaging.refusal_reasons.REASONS`."""
    opener = OPENERS[form]
    return (resolve_name(opener) if isinstance(opener, str) else opener)(content, classes)


def read_mask(form: str, content: bytes | memoryview, target: MaskTarget, classes: MaskClasses) -> SourceMask:
    """Return the mask of one image from a file; raise as `open_mask`."""
    return open_mask(form, content, classes)(target)


def mask_item(targets: Sequence[MaskTarget], parts: Sequence[Sequence[Mapping[str, Any]]]) -> Item:
    """Return the masks of some images as one item for the sandbox.

    Each part is a file: its `content` (bytes or a path), its `format`, the `slice` of a volume that it is of alone or
    None, and the numbers of the classes that were `drawn` or None.
    """
    contents = [part["content"] for some in parts for part in some]
    # A file of a whole series travels once.
    number_of = {content: number for number, content in enumerate(dict.fromkeys(contents))}
    heads = [
        {
            "target": target.to_json(),
            "parts": [
                [number_of[part["content"]], part["format"], part.get("slice"), part.get("drawn")]
                for part in some
            ],
        }
        for target, some in zip(targets, parts, strict=True)
    ]
    return Item({"masks": heads}, tuple(number_of))


def prepare_masks(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Blob]]:
    """Read masks and bring them to the model's grid; a `Function` of the sandbox.

    `setup` has the `spec` and the `classes` (`MaskClasses.to_json`). The answer has for each mask that could be read
    its number, its unknown classes and the frames of reference that it states (`masks`), and for the others number,
    reason and detail (`faults`). Its one blob are the class numbers (n, *spec.shape) of the former.
    """
    spec, classes = _spec(setup["spec"]), MaskClasses.from_json(setup["classes"])
    opened = OpenFiles(blobs, classes)
    made, masks, faults = [], [], []
    for number, head in enumerate(value["masks"]):
        try:
            target = MaskTarget.from_json(head["target"])
            mask = _whole(target, head["parts"], opened, classes)
            made.append(mask_to_model(mask.classes, target.grid, spec))
        except DataFault as fault:
            faults.append([number, fault.reason, fault.detail])
        else:
            stated = sorted({*target.stated_frames_of_reference} - {""})
            masks.append([number, sorted(mask.unknown_classes), stated])
    return {"masks": masks, "faults": faults}, (np.stack(made).data,) if made else ()


@cache
def _spec(json: str) -> PreprocessSpec:
    return PreprocessSpec.model_validate_json(json)


class OpenFiles:
    """Files of masks that are open: the latest few, as those of a series come one after the other."""

    def __init__(self, blobs: Sequence[bytes | Path], classes: MaskClasses) -> None:
        self._blobs = blobs
        self._classes = classes
        self._open: dict[int, MaskOf | DataFault] = {}

    def get(self, number: int, form: str) -> MaskOf:
        """Return the masks of a file; raise the DataFault that opening it once gave."""
        if number not in self._open:
            while len(self._open) >= OPEN_FILES:
                del self._open[next(iter(self._open))]
            try:
                content = FileBuffer().load(self._blobs[number], LIMITS.file_bytes)
                self._open[number] = open_mask(form, content, self._classes)
            except DataFault as fault:
                self._open[number] = fault
        masks = self._open[number]
        if isinstance(masks, DataFault):
            raise DataFault(masks.reason, masks.detail)
        return masks


def _whole(
    target: MaskTarget, parts: Sequence[Sequence[Any]], files: OpenFiles, classes: MaskClasses
) -> SourceMask:
    """Return the mask of an image from all of its files."""
    whole: list[SourceMask] = []
    slices: dict[int, list[SourceMask]] = {}
    for number, form, at, drawn in parts:
        mask = files.get(number, form)(target if at is None else _slice_target(target, at))
        if drawn is not None:
            mask = SourceMask(mask.classes, mask.unknown_classes | (classes.numbers - {*drawn}))
        (whole if at is None else slices.setdefault(at, [])).append(mask)
    if slices:
        one_each = {number: merged(some, classes) for number, some in slices.items()}
        whole.append(stacked(one_each, target.grid, classes))
    return merged(whole, classes)


def _slice_target(target: MaskTarget, number: int) -> MaskTarget:
    """Return one slice of a volume as an image of its own."""
    if not 0 <= number < target.grid.size[0]:
        raise DataFault("mask-absent-slice", f"the mask is of slice {number} of {target.grid.size[0]}")
    grid, affine = target.grid, target.grid.affine
    if affine is not None:
        affine = affine.copy()
        affine[:, 3] = affine @ (0, 0, number, 1)
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2])
    return MaskTarget(
        grid=SourceGrid(grid.size[1:], grid.spacing and grid.spacing[-2:], affine),
        instances=target.instances[number : number + 1],
        frame_of_reference_uid=target.frame_of_reference_uid,
        stated_frames_of_reference=target.stated_frames_of_reference,
    )
