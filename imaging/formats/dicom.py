"""Owns the reading of a DICOM object into instances, frame by frame."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from imaging.dicom.attributes import Value
from imaging.dicom.elements import Buffer
from imaging.dicom.header import UID_FORM, read_header
from imaging.dicom.opened import Opened, open_object
from imaging.dicom.parse import reading
from imaging.dicom.pixels import Layout, check_present, layout_of, stored_frame
from imaging.dicom.transforms import PHOTOMETRIC
from imaging.dicom.walk import DEFLATED
from imaging.errors import DataFault
from imaging.image import Image
from imaging.instance import Instance

HEAD_BYTES = 2**20
"""Where the identifiers of a file stand, if anywhere."""

FAMILY = ("StudyInstanceUID", "SeriesInstanceUID")

LARGEST = float(np.finfo(np.float32).max) / 4
"""The largest value in modality units: with it, sums and differences of two stay within single precision."""


def read_dicom(data: Buffer, modality: str) -> Iterator[Instance]:
    """Yield the frames of an object; each is valid as long as `data` is.

    Raises DataFault with any reason of `imaging.dataset.quarantine.REASONS`, and EnvironmentFault for a
    decoder that is not installed.
    """
    opened = open_object(data)
    header = read_header(opened.attributes, modality, has_pixels=has_pixels(opened))
    layout = layout_of(opened.attributes)
    check_present(opened, layout)
    digest = hashlib.sha256(data).hexdigest()
    for index in range(layout.frames):
        yield Instance(
            patient_id=header.patient_id,
            study_uid=header.study_uid,
            series_uid=header.series_uid,
            sop_instance_uid=header.sop_instance_uid,
            frame=index + 1 if layout.frames > 1 else 0,
            image=frame_image(opened, layout, index),
            content_sha256=digest,
            attributes=header.attributes,
        )


def has_pixels(opened: Opened) -> bool:
    """Say whether an object has pixel data of any kind."""
    return bool(opened.pixels)


def frame_image(opened: Opened, layout: Layout, index: int) -> Image:
    """Return one frame with its transforms."""
    attributes = opened.frame_attributes(index)
    stored = stored_frame(opened, layout, index)
    with reading("undecodable"):
        image = PHOTOMETRIC[layout.photometric](opened, attributes, stored, index)
    # Not by comparing with what is too large: not-a-number is never larger.
    if not _largest(image.stored) * max(abs(image.slope), 1) + abs(image.intercept) <= LARGEST:
        raise DataFault("undecodable", "the rescaled values are too large for single precision")
    return image


def _largest(stored: NDArray[Any]) -> float:
    """Return a bound of the absolute values; of whole numbers it need not be looked for."""
    if stored.dtype.kind != "f":
        return float(2 ** (8 * stored.itemsize))
    return float(np.abs(stored).max())


def identifiers_of(data: Buffer) -> dict[str, Value]:
    """Return the UIDs of study and series of an object that could not be read whole, as far as they are found."""
    found: dict[str, Value] = {}
    with suppress(DataFault), reading("unreadable"):
        head = bytes(data[:HEAD_BYTES])
        if DEFLATED.encode() in head:
            return found  # pydicom would inflate it without a limit
        dataset = dcmread(BytesIO(head), force=True, specific_tags=[*FAMILY])
        uids = {name: str(dataset.get(name) or "").strip(" \0") for name in FAMILY}
        found |= {name: uid for name, uid in uids.items() if UID_FORM.fullmatch(uid)}
    return found
