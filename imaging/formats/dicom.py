"""Reader of DICOM objects: an instance for each frame."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from io import BytesIO
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from imaging.dicom.attributes import Attributes, Value, text
from imaging.dicom.dicom_object import DicomObject, open_object
from imaging.dicom.elements import Buffer
from imaging.dicom.frames import Frames, frames_of
from imaging.dicom.geometry import Matrix, plane_axes, slice_affine
from imaging.dicom.header import UID_FORM, Header, read_header, uid_of
from imaging.dicom.mosaic import Mosaic
from imaging.dicom.parse import reading
from imaging.dicom.pixel_length import check_present
from imaging.dicom.pixels import NATIVE_BITS, Layout, layout_of
from imaging.dicom.transforms import PHOTOMETRIC
from imaging.dicom.walk import DEFLATED
from imaging.errors import DataFault
from imaging.formats.header_cache import HeaderCache
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.image.window import Unusable
from imaging.pixel_digests import file_digest, native_file_digest, pixel_digest

UID_HEAD_BYTES = 2**20
"""The head of a file, which holds its UIDs if it has any."""

PARENT_UIDS = ("StudyInstanceUID", "SeriesInstanceUID")

LARGEST = float(np.finfo(np.float32).max) / 4
"""The largest value in modality units: with it, sums and differences of two stay within single precision."""


VARYING = (
    *("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "TriggerTime", "TemporalPositionIndex"),
    "FrameOfReferenceUID",
)
"""Attributes that differ among the slices of a series and do not change how a slice is read and shown.

Some anonymizers give each slice a frame of reference of its own (Sunnybrook Cardiac Data).
"""


@dataclass(frozen=True, slots=True)
class HeaderMeaning:
    """What a header says but for its SOPInstanceUID; `image` is a grey frame without its values, or None.

    `axes` are the `plane_axes` of that frame.
    """

    header: Header
    layout: Layout
    image: Image | None
    mosaic: Mosaic | None = None
    axes: Matrix | None = None


def read_dicom(data: Buffer, modality: str) -> Iterator[Instance]:
    """Yield an instance for each frame of an object, or tile of a mosaic; it is valid as long as `data` is.

    Raises DataFault with a reason of `imaging.refusal_reasons.REASONS`, and EnvironmentFault for a decoder that is
    not installed.
    """
    instance_uid, opened, meaning = _read_header(data, modality)
    header, layout = meaning.header, meaning.layout
    findings = check_present(opened, layout)
    frames = Frames(opened=opened, layout=layout, mosaic=meaning.mosaic)
    several = frames.count > 1
    whole = file_digest(data) if several else b""
    for index in range(frames.count):
        stored = frames.stored(index)
        pixels = pixel_digest(allocated(stored, layout))
        if meaning.image:
            place = slice_affine(opened.attributes, meaning.axes) if meaning.axes is not None else None
            image = replace(meaning.image, stored=stored, affine=place)
        else:
            attributes = opened.frame_attributes(index)
            image = frame_image(opened, layout, stored, index, attributes)
            image = replace(image, affine=frames.affine(index, attributes))
        yield Instance(
            patient_id=header.patient_id,
            study_uid=header.study_uid,
            series_uid=header.series_uid,
            sop_instance_uid=instance_uid,
            frame=index + 1 if several else 0,
            institution=header.institution,
            frame_of_reference_uid=text(opened.attributes, "FrameOfReferenceUID"),
            image=image,
            content_blake3=(whole or content_digest(data, opened, stored, pixels)).hex(),
            pixel_blake3=pixels.hex(),
            attributes=header.attributes,
            findings=(*findings, *image_findings(image)),
        )


@cache
def _header_cache(modality: str) -> HeaderCache[HeaderMeaning]:
    return HeaderCache(frozenset(VARYING))


def _read_header(data: Buffer, modality: str) -> tuple[str, DicomObject, HeaderMeaning]:
    """Return the SOPInstanceUID of a file, the object, and the meaning of the rest of its header."""
    header_cache = _header_cache(modality)
    cached = header_cache.find(data)
    if cached is not None:
        return cached
    opened = open_object(data)
    instance_uid, meaning = _meaning(opened, modality)
    if meaning.image is not None and meaning.layout.frames == 1:
        header_cache.keep(opened, meaning)
    return instance_uid, opened, meaning


def _meaning(opened: DicomObject, modality: str) -> tuple[str, HeaderMeaning]:
    """Return the SOPInstanceUID, and the meaning of the rest, which is the same for the slices of a series."""
    if opened.dataset is not None or opened.floating_bits:
        header = read_header(opened.attributes, modality, has_pixels=bool(opened.pixels))
        frames = frames_of(opened)
        return header.sop_instance_uid, HeaderMeaning(header, frames.layout, None, frames.mosaic)
    rest = dict(opened.attributes)
    for keyword in VARYING:
        rest.pop(keyword, None)
    return uid_of(opened.attributes, "SOPInstanceUID"), _cached_meaning(
        tuple(rest.items()), modality, bool(opened.pixels)
    )


@lru_cache(256)
def _cached_meaning(shared: tuple[tuple[str, Value], ...], modality: str, has_pixels: bool) -> HeaderMeaning:
    attributes: dict[str, Value] = {**dict(shared), "SOPInstanceUID": "0"}
    header = read_header(attributes, modality, has_pixels=has_pixels)
    layout = layout_of(attributes)
    if layout.samples != 1 or layout.bits_allocated not in NATIVE_BITS:
        return HeaderMeaning(header, layout, None)
    # Of a grey frame without tables, only the type of its values matters.
    kind = f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
    empty = DicomObject(data=b"", syntax="", attributes=attributes)
    image = frame_image(empty, layout, np.empty((0, 0), kind), 0)
    # Several frames cannot all lie at the one position of the object.
    axes = plane_axes(attributes) if layout.frames == 1 else None
    return HeaderMeaning(header, layout, image, axes=axes)


def image_findings(image: Image) -> tuple[str, ...]:
    """Return what is to be known of an image beside its pixels, keys of FINDINGS."""
    return ("unusable-window",) if any(isinstance(voi, Unusable) for voi in image.vois) else ()


def content_digest(data: Buffer, opened: DicomObject, stored: NDArray[Any], pixels: bytes) -> bytes:
    """Return the digest of a file of one frame; if it is not compressed, it is made with the digest of its pixels."""
    if opened.data is data and np.may_share_memory(stored, np.frombuffer(data, np.uint8)):
        # The values are bytes of the file, none of them changed or omitted.
        return native_file_digest(data, opened.pixels[0][0], stored.nbytes, pixels)
    return file_digest(data)


def allocated(stored: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Return integers as wide as the header says: some codecs return them as wide as the codestream needs."""
    width = layout.bits_allocated // 8
    if stored.dtype.kind == "f" or width not in (2, 4) or stored.dtype.itemsize == width:
        return stored
    return stored.astype(f"<{'i' if layout.signed else 'u'}{width}")


def frame_image(
    opened: DicomObject,
    layout: Layout,
    stored: NDArray[Any],
    index: int,
    attributes: Attributes | None = None,
) -> Image:
    """Return the stored values of one frame with their transforms to modality units and to grey levels.

    `attributes` are those of the frame, if at hand.
    Raises DataFault "undecodable" for values too large for single precision.
    """
    if attributes is None:
        attributes = opened.frame_attributes(index)
    with reading("undecodable", "a transform of the pixels"):
        image = PHOTOMETRIC[layout.photometric](opened, attributes, stored, index)
    largest = _largest(image.stored)
    if isnan(largest):
        raise DataFault(
            "undecodable", "values are no numbers (NaN), and the header does not call them padding"
        )
    if largest * max(abs(image.slope), 1) + abs(image.intercept) > LARGEST:
        raise DataFault("undecodable", "the rescaled values are too large for single precision")
    return image


def _largest(stored: NDArray[Any]) -> float:
    """Return a bound of the absolute values; the one of integers follows from their type."""
    if stored.dtype.kind != "f":
        return float(2 ** (8 * stored.itemsize))
    return float(np.abs(stored).max())


def parent_uids(data: Buffer) -> dict[str, Value]:
    """Return the UIDs of study and series of an object that cannot be read whole, as far as its head has them."""
    with suppress(DataFault), reading("unreadable"):
        head = bytes(data[:UID_HEAD_BYTES])
        if DEFLATED.encode() in head:
            return {}  # pydicom would inflate it without a limit
        dataset = dcmread(BytesIO(head), force=True, specific_tags=[*PARENT_UIDS])
        uids = {name: str(dataset.get(name) or "").strip(" \0") for name in PARENT_UIDS}
        return {name: uid for name, uid in uids.items() if UID_FORM.fullmatch(uid)}
    return {}
