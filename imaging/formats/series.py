"""Owns the reading of the files of one series into volumes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from imaging.buffer import FileBuffer
from imaging.dicom.attributes import Attributes
from imaging.dicom.elements import Buffer
from imaging.dicom.header import Header, read_header
from imaging.dicom.limits import LIMITS, check_limit
from imaging.dicom.opened import Opened, open_object
from imaging.dicom.pixels import check_present, layout_of, stored_frame
from imaging.dicom.volume import Stack, stack
from imaging.digests import digest_of_all, file_digest, pixel_digest
from imaging.errors import DataFault
from imaging.formats.dicom import allocated, has_pixels, transformed
from imaging.formats.voxels import fill_gaps, padding_of, units
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.sources.protocol import Payload

DROP_SLICE, DROP_STUDY = "drop-slice", "drop-study"
"""What a bad slice costs: itself, or the whole volume and its study."""

VOXELS = 2**27
"""The most voxels of one volume: 512 slices of 512 x 512, half a GiB in single precision."""

FLAWS = frozenset({"gap", "no-geometry", "bad-orientation"})
"""Findings of `imaging.dicom.findings` that mean that a slice is missing or unusable."""

UNKNOWN_MM = frozenset({"relative-spacing", "no-spacing"})
"""Findings of a volume whose spacing is not in mm."""

NOT_A_SLICE = frozenset({"not-dicom", "dicomdir", "no-pixels", "wrong-modality"})
"""Reasons that take a file out of a series without a loss: it never was one of its slices."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of one file: where it is, and its attributes with those of the functional groups."""

    content: int
    frame: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Digests:
    """Of the files that a volume was made of, each once, and of the stored pixels of its slices, in their order."""

    files: dict[int, bytes] = field(default_factory=dict)
    slices: list[bytes] = field(default_factory=list)


def read_series(payload: Payload, modality: str) -> Iterator[Instance]:
    """Yield the volumes of a series, which may be several: localizers, echoes and time points are kept apart.

    With the policy "drop-study" one bad slice raises DataFault "bad-slice"; with "drop-slice" it is left out, and
    what it leaves open is drawn from its neighbours.
    """
    strict = is_strict(payload)
    buffer = FileBuffer()
    slices, header, faults = _headers(payload, modality, buffer)
    if header is None:
        raise faults[0]
    if faults and strict:
        raise DataFault(
            "bad-slice", f"{len(faults)} of {len(payload.contents)} files, the first: {faults[0].reason}"
        )
    found = stack([piece.attributes for piece in slices])
    if strict:
        _refuse_flaws(found.left, found.stacks)
    if not found.stacks:
        raise DataFault("no-geometry", f"none of {len(slices)} slices tells its position")
    # What is left out has no row of its own: the volumes of the series say so.
    dropped = ("slices-dropped",) if faults or found.left else ()
    for number, one in enumerate(found.stacks, start=1):
        volume = _volume(payload, header, [slices[n] for n in one.order], one, buffer)
        suffix = f"/{number}" if len(found.stacks) > 1 else ""
        yield replace(
            volume,
            sop_instance_uid=volume.sop_instance_uid + suffix,
            findings=tuple(dict.fromkeys((*volume.findings, *dropped))),
        )


def is_strict(payload: Payload) -> bool:
    """Say whether one bad slice costs its volume."""
    return dict(payload.metadata).get("bad-slice", DROP_STUDY) == DROP_STUDY


def _bytes(content: Path | bytes, buffer: FileBuffer) -> Buffer:
    return buffer.load(content, LIMITS.file_bytes) if isinstance(content, Path) else content


def _headers(
    payload: Payload, modality: str, buffer: FileBuffer
) -> tuple[list[Slice], Header | None, list[DataFault]]:
    slices: list[Slice] = []
    faults: list[DataFault] = []
    header, strangers = None, 0
    for number, content in enumerate(payload.contents):
        try:
            opened = open_object(_bytes(content, buffer))
            told = read_header(opened.attributes, modality, has_pixels=has_pixels(opened))
            layout = layout_of(opened.attributes)
            check_present(opened, layout)
            slices += [Slice(number, n, opened.frame_attributes(n)) for n in range(layout.frames)]
            header = header or told
            strangers += (told.patient_id, told.study_uid) != (header.patient_id, header.study_uid)
        except DataFault as fault:
            if fault.reason not in NOT_A_SLICE or len(payload.contents) == 1:
                faults.append(fault)
    if strangers:
        # A volume of two patients would be worse than none, and nobody knows whose the series is.
        raise DataFault("bad-slice", f"{strangers} files are of another patient or study than the first")
    if header is None and not faults:
        faults.append(DataFault("no-pixels"))
    return slices, header, faults


def _refuse_flaws(left: Sequence[tuple[int, str]], stacks: Sequence[Stack]) -> None:
    reasons = [reason for _, reason in left]
    codes = [finding.code for one in stacks for finding in one.findings]
    flaws = sorted(FLAWS & {*reasons, *codes})
    if flaws:
        raise DataFault("bad-slice", f"the slices make no whole volume: {', '.join(flaws)}")


def _volume(
    payload: Payload,
    header: Header,
    slices: list[Slice],
    one: Stack,
    buffer: FileBuffer,
) -> Instance:
    digests = Digests()
    codes = dict.fromkeys(finding.code for finding in one.findings)
    images = _images(payload, slices, one.places, buffer, digests)
    image, whole = _assemble(images, one, known=not UNKNOWN_MM & {*codes})
    return Instance(
        patient_id=header.patient_id,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_instance_uid=header.series_uid,
        image=image,
        content_blake3=digest_of_all(digests.files.values()).hex(),
        pixel_blake3=digest_of_all(digests.slices).hex(),
        institution=header.institution,
        attributes={**header.attributes, "spacing_mm": one.spacing_mm[1]},
        findings=tuple(codes if whole else codes | {"gap": None, "slices-dropped": None}),
    )


def _images(
    payload: Payload, slices: list[Slice], places: Sequence[int], buffer: FileBuffer, digests: Digests
) -> Iterator[tuple[int, Image | DataFault]]:
    """Yield the place of each slice and its image, or why it has none; an image is valid until the next one."""
    opened, at = None, -1
    for piece, place in zip(slices, places, strict=True):
        try:
            if opened is None or piece.content != at:
                data, at = _bytes(payload.contents[piece.content], buffer), piece.content
                opened = open_object(data)
                digests.files[at] = file_digest(data)
            found: Image | DataFault = _frame(opened, piece.frame, digests)
        except DataFault as fault:
            found = DataFault("bad-slice", f"1 of {len(slices)} slices: {fault.reason}")
            if is_strict(payload):
                raise found from None
        yield place, found


def _frame(opened: Opened, index: int, digests: Digests) -> Image:
    layout = layout_of(opened.attributes)
    stored = stored_frame(opened, layout, index)
    image = transformed(opened, layout, stored, index)
    digests.slices.append(pixel_digest(allocated(stored, layout)))
    return image


def _assemble(
    images: Iterator[tuple[int, Image | DataFault]], one: Stack, *, known: bool
) -> tuple[Image, bool]:
    """Return the slices at their places in one array of modality units, and whether none was lost on the way."""
    first: Image | None = None
    volume = np.empty((0, 0, 0), np.float32)
    fault, places = DataFault("no-pixels"), list[int]()
    for place, image in images:
        if isinstance(image, DataFault):
            fault = image
            continue
        if first is None:
            shape = (one.places[-1] + 1, *image.stored.shape)
            check_limit("too-large", "the number of voxels", math.prod(shape), VOXELS)
            first, volume = image, np.empty(shape, np.float32)
        volume[place] = units(image)
        places.append(place)
    if first is None:
        raise fault
    fill_gaps(volume, places)
    volume = volume[places[0] : places[-1] + 1]
    found = Image(
        stored=volume,
        vois=first.vois,
        inverted=first.inverted,
        padding=padding_of(volume),
        spacing_mm=one.spacing_mm if known else None,
    )
    return found, len(places) == len(one.places)
