"""Reading of masks of strangers in the sandbox: from the files of a mask to class numbers on the model's grid.

`prepare_masks` is a function of `imaging.sandbox`, as `imaging.dataset.ingest.prepare_files` is for images: it is given
the bytes of mask files beside the grid of the image that each is of, which rows of a dataset keep.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from imaging.annotations.masks.mask import MaskClasses, MaskTarget, SourceMask, merged, stacked
from imaging.annotations.masks.read_picture_mask import read_picture_mask
from imaging.annotations.masks.read_rtstruct import RTSTRUCT, read_rtstruct
from imaging.annotations.masks.read_seg import SEGMENTATIONS, read_seg
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

Reader = Callable[[bytes | memoryview, MaskTarget, MaskClasses], SourceMask]


def read_dicom_mask(content: bytes | memoryview, target: MaskTarget, classes: MaskClasses) -> SourceMask:
    """Return the mask of a SEG or an RTSTRUCT; raise DataFault "unsupported" for any other object."""
    opened = open_object(content)
    sop_class = text(opened.attributes, "SOPClassUID")
    if sop_class in SEGMENTATIONS:
        return read_seg(opened, target, classes)
    if sop_class == RTSTRUCT:
        return read_rtstruct(opened.dataset or parse(content), target, classes)
    raise DataFault(
        "unsupported", "a DICOM object that is no segmentation (SEG) and no structure set (RTSTRUCT)"
    )


READERS: Mapping[str, Reader | str] = {
    "dicom": read_dicom_mask,
    # By name: nibabel takes a quarter of a second, and most masks are not NIfTI.
    "nifti": "imaging.annotations.masks.read_nifti_mask:read_nifti_mask",
    "picture": read_picture_mask,
}
"""Readers by the format of a file, as `imaging.sources.protocol.format_of` tells it by its name."""


def read_mask(
    form: str,
    content: bytes | memoryview,
    target: MaskTarget,
    classes: MaskClasses,
    drawn: Sequence[int] | None = None,
) -> SourceMask:
    """Return the mask of an image from one file; `drawn` are the classes that were, None where all of the file's were.

    Raises DataFault with a reason of `imaging.refusal_reasons.REASONS`.
    """
    reader = READERS[form]
    mask = (resolve_name(reader) if isinstance(reader, str) else reader)(content, target, classes)
    if drawn is None:
        return mask
    return SourceMask(mask.classes, mask.unknown_classes | (classes.numbers - {*drawn}))


def mask_item(targets: Sequence[MaskTarget], parts: Sequence[Sequence[Mapping[str, Any]]]) -> Item:
    """Return the masks of some images as one item for the sandbox.

    Each part is a file: its `content` (bytes or a path), its `format`, the `slice` of a volume that it is of alone or
    None, and the numbers of the classes that were `drawn` or None.
    """
    heads = [
        {
            "target": target.to_json(),
            "parts": [[part["format"], part.get("slice"), part.get("drawn")] for part in some],
        }
        for target, some in zip(targets, parts, strict=True)
    ]
    return Item({"masks": heads}, tuple(part["content"] for some in parts for part in some))


def prepare_masks(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Blob]]:
    """Read masks and bring them to the model's grid; a `Function` of the sandbox.

    `setup` has the `spec` and the `classes` (`MaskClasses.to_json`). The answer has for each mask that could be read
    its number, its unknown classes and the frames of reference that it states (`masks`), and for the others number,
    reason and detail (`faults`). Its one blob are the class numbers (n, *spec.shape) of the former.
    """
    spec, classes, contents = _spec(setup["spec"]), MaskClasses.from_json(setup["classes"]), iter(blobs)
    made, masks, faults = [], [], []
    for number, head in enumerate(value["masks"]):
        files = list(islice(contents, len(head["parts"])))
        try:
            target = MaskTarget.from_json(head["target"])
            mask = _whole(target, head["parts"], files, classes)
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


def _whole(
    target: MaskTarget, parts: Sequence[Sequence[Any]], files: Sequence[bytes | Path], classes: MaskClasses
) -> SourceMask:
    """Return the mask of an image from all of its files."""
    whole: list[SourceMask] = []
    slices: dict[int, list[SourceMask]] = {}
    for (form, number, drawn), file in zip(parts, files, strict=True):
        content = FileBuffer().load(file, LIMITS.file_bytes)
        if number is None:
            whole.append(read_mask(form, content, target, classes, drawn))
        else:
            of_slice = _slice_target(target, number)
            slices.setdefault(number, []).append(read_mask(form, content, of_slice, classes, drawn))
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
