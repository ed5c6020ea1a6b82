"""Owns the reading of a DICOM object into instances, frame by frame."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from imaging.dicom.attributes import Value
from imaging.dicom.elements import Buffer
from imaging.dicom.header import UID_FORM, Header, read_header, uid_of
from imaging.dicom.opened import Opened, open_object
from imaging.dicom.parse import reading
from imaging.dicom.pixels import NATIVE_BITS, Layout, check_present, layout_of, stored_frame
from imaging.dicom.transforms import PHOTOMETRIC
from imaging.dicom.walk import DEFLATED
from imaging.digests import file_digest, native_file_digest, pixel_digest
from imaging.errors import DataFault
from imaging.formats.header_cache import Twins
from imaging.image.image import Image
from imaging.image.instance import Instance

HEAD_BYTES = 2**20
"""Where the identifiers of a file stand, if anywhere."""

FAMILY = ("StudyInstanceUID", "SeriesInstanceUID")

LARGEST = float(np.finfo(np.float32).max) / 4
"""The largest value in modality units: with it, sums and differences of two stay within single precision."""


VARYING = ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "TriggerTime", "TemporalPositionIndex")
"""What tells slices of a series apart, and nothing of how they are to be read and shown."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a header means, but for its SOPInstanceUID; `image` is a grey frame without its values."""

    header: Header
    layout: Layout
    image: Image | None


def read_dicom(data: Buffer, modality: str) -> Iterator[Instance]:
    """Yield the frames of an object; each is valid as long as `data` is.

    Raises DataFault with any reason of `imaging.refusal_reasons.REASONS`, and EnvironmentFault for a
    decoder that is not installed.
    """
    instance_uid, opened, known = _understood(data, modality)
    header, layout = known.header, known.layout
    check_present(opened, layout)
    whole = file_digest(data) if layout.frames > 1 else b""
    for index in range(layout.frames):
        stored = stored_frame(opened, layout, index)
        pixels = pixel_digest(allocated(stored, layout))
        yield Instance(
            patient_id=header.patient_id,
            study_uid=header.study_uid,
            series_uid=header.series_uid,
            sop_instance_uid=instance_uid,
            frame=index + 1 if layout.frames > 1 else 0,
            institution=header.institution,
            image=replace(known.image, stored=stored)
            if known.image
            else transformed(opened, layout, stored, index),
            content_blake3=(whole or content_digest(data, opened, stored, pixels)).hex(),
            pixel_blake3=pixels.hex(),
            attributes=header.attributes,
        )


def has_pixels(opened: Opened) -> bool:
    """Say whether an object has pixel data of any kind."""
    return bool(opened.pixels)


def forget() -> None:
    """Forget all headers that were met; what was found of them holds under the limits of then."""
    _twins.cache_clear()
    _meaning.cache_clear()


@cache
def _twins(modality: str) -> Twins[Known]:
    return Twins(frozenset(VARYING))


def _understood(data: Buffer, modality: str) -> tuple[str, Opened, Known]:
    """Return the SOPInstanceUID of a file, the object, and what its header means otherwise."""
    twins = _twins(modality)
    found = twins.find(data)
    if found is not None:
        return found
    opened = open_object(data)
    instance_uid, known = _known(opened, modality)
    if known.image is not None and known.layout.frames == 1:
        twins.keep(opened, known)
    return instance_uid, opened, known


def _known(opened: Opened, modality: str) -> tuple[str, Known]:
    """Return the SOPInstanceUID, and what the header means otherwise: slices of a series share all that."""
    if opened.dataset is not None or opened.floating_bits:
        header = read_header(opened.attributes, modality, has_pixels=has_pixels(opened))
        return header.sop_instance_uid, Known(header, layout_of(opened.attributes), None)
    rest = dict(opened.attributes)
    for keyword in VARYING:
        rest.pop(keyword, None)
    return uid_of(opened.attributes, "SOPInstanceUID"), _meaning(
        tuple(rest.items()), modality, has_pixels(opened)
    )


@lru_cache(256)
def _meaning(told: tuple[tuple[str, Value], ...], modality: str, pixels: bool) -> Known:
    attributes: dict[str, Value] = {**dict(told), "SOPInstanceUID": "0"}
    header = read_header(attributes, modality, has_pixels=pixels)
    layout = layout_of(attributes)
    if layout.samples != 1 or layout.bits_allocated not in NATIVE_BITS:
        return Known(header, layout, None)
    opened = Opened(
        data=b"",
        syntax="",
        attributes=attributes,
        dataset=None,
        pixels=(),
        encapsulated=False,
        floating_bits=0,
    )
    # Of a grey frame without tables, only the type of its values counts.
    kind = f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
    return Known(header, layout, transformed(opened, layout, np.empty((0, 0), kind), 0))


def content_digest(data: Buffer, opened: Opened, stored: NDArray[Any], pixels: bytes) -> bytes:
    """Return the digest of a file of one frame: of one that is not compressed, by way of the digest of its pixels."""
    if opened.data is data and np.may_share_memory(stored, np.frombuffer(data, np.uint8)):
        # The values are bytes of the file, none of them changed or left out.
        return native_file_digest(data, opened.pixels[0][0], stored.nbytes, pixels)
    return file_digest(data)


def allocated(stored: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Return whole numbers as wide as the header says: some codecs make them as wide as the codestream needs."""
    width = layout.bits_allocated // 8
    if stored.dtype.kind == "f" or width not in (2, 4) or stored.dtype.itemsize == width:
        return stored
    return stored.astype(f"<{'i' if layout.signed else 'u'}{width}")


def transformed(opened: Opened, layout: Layout, stored: NDArray[Any], index: int) -> Image:
    """Return the stored values of one frame with what turns them into modality units and shown levels."""
    attributes = opened.frame_attributes(index)
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
