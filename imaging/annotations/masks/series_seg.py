"""Segmentation of a series from the masks of its images, written in the sandbox: the headers are those of strangers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from imaging.annotations.masks.write_seg import (
    IDENTITY,
    SegHeader,
    Segment,
    object_bytes,
    segmentation_object,
)
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading
from imaging.errors import DataFault, UserFault
from imaging.file_io import FileBuffer
from imaging.image.source_grid import SourceGrid
from imaging.preprocess.inverse import Mask
from imaging.sandbox.messages import Blob

DATES = ("PatientBirthDate", "StudyDate")


def write_series_seg(
    _: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Blob]]:
    """Write the segmentation of a series; a `Function` of the sandbox, whose one blob is the file.

    The blobs are the mask of the `shape` (planes, rows, columns) and the files of its images, one for each plane in
    their order, or one for all frames. With a `volume` the mask is on its grid, and each file finds its slice by where
    it lies. The `header` has the fields of `SegHeader` but for the identity, which is that of the images, the names of
    the `classes`, and the `kind`. Raises DataFault "no-geometry" where the images have no frame of reference or no
    position.
    """
    first, *files = blobs
    assert isinstance(first, bytes | bytearray | memoryview)
    mask = np.frombuffer(first, np.uint8).reshape(value["shape"])
    images = [parse(bytes(FileBuffer().load(file, LIMITS.file_bytes))) for file in files]
    if value["volume"]:
        mask, images = _of_slices(mask, images, SourceGrid.from_json(value["volume"]))
    elif len(images) > 1:
        order = _order(images)
        mask, images = mask[order], [images[at] for at in order]
    header = dict(value["header"])
    classes, kind = header.pop("classes"), header.pop("kind")
    with reading("unreadable", "patient and study"):
        identity = {name: str(images[0][name].value or "") for name in IDENTITY if name in images[0]}
    # Archives have dates such as 00000000 and 20120000, which no writer takes: they stay empty, as type 2 may.
    identity |= {name: "" for name in DATES if not _is_date(identity.get(name, ""))}
    header |= {"created": datetime.fromisoformat(header["created"]), "identity": identity}
    try:
        made = segmentation_object(
            mask, images, [Segment(name=name) for name in classes], SegHeader(**header), kind=kind
        )
    except UserFault as fault:
        raise DataFault("no-geometry", str(fault)) from None
    return {}, (object_bytes(made),)


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True


def _order(images: Sequence[Dataset]) -> list[int]:
    """Return the images along the normal of the first one, as viewers stack them."""
    with reading("no-geometry", "the positions of the images"):
        cosines = np.array(images[0].ImageOrientationPatient, np.float64)
        normal = np.cross(cosines[:3], cosines[3:])
        along = [float(normal @ np.array(image.ImagePositionPatient, np.float64)) for image in images]
    order: list[int] = np.argsort(along, kind="stable").tolist()
    return order


def _of_slices(mask: Mask, images: Sequence[Dataset], grid: SourceGrid) -> tuple[Mask, list[Dataset]]:
    """Return the planes of the files of a volume, in the order of its slices, and the files; others are left out."""
    if grid.affine is None:
        raise DataFault("no-geometry", "the volume does not say where it lies")
    to_index = np.linalg.inv(grid.affine)
    placed: dict[int, Dataset] = {}
    for image in images:
        with reading("no-geometry", "the position of a slice"):
            at = int(np.rint((to_index @ [*map(float, image.ImagePositionPatient), 1.0])[2]))
        if 0 <= at < grid.size[0]:
            placed.setdefault(at, image)
    order = sorted(placed)
    return mask[order], [placed[at] for at in order]
