"""Reader of the files of one series: volumes, in which gaps are filled from the neighbours."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imaging.dicom.attributes import Attributes, text
from imaging.dicom.dicom_object import open_object
from imaging.dicom.frames import Frames, frames_of
from imaging.dicom.geometry import Matrix
from imaging.dicom.header import Header, read_header
from imaging.dicom.limits import LIMITS, check_limit
from imaging.dicom.pixel_length import check_present
from imaging.dicom.stacking import SliceStack, Stacking, stack_slices
from imaging.errors import DataFault
from imaging.file_io import FileBuffer
from imaging.formats.dicom import allocated, frame_image, image_findings
from imaging.image.image import PADDED, Image
from imaging.image.instance import Instance
from imaging.pixel_digests import digest_of_all, file_digest, pixel_digest
from imaging.sources.protocol import Payload

DROP_SLICE, DROP_STUDY = "drop-slice", "drop-study"
"""What a bad slice costs: itself, or the whole volume and its study."""

VOXELS = 2**27
"""The most voxels of one volume: 512 slices of 512 x 512, half a GiB in single precision."""

FLAWS = frozenset({"gap", "no-geometry", "bad-orientation"})
"""Findings of `imaging.dicom.findings` that mean that a slice is missing or unusable."""

UNKNOWN_MM = frozenset({"relative-spacing", "no-spacing"})
"""Findings about a volume whose spacing is not in mm."""

NOT_A_SLICE = frozenset({"not-dicom", "dicomdir", "no-pixels", "wrong-modality"})
"""Reasons to leave a file out of a series without a loss: it never was one of its slices."""

FILLED_SLICES = 3
"""So many missing slices are interpolated; a larger gap is another part of the body."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of one file: the number of the file, and its attributes with those of the functional groups."""

    content: int
    frame: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the files of a volume, each once, and of the stored pixels of its slices, in their order."""

    files: dict[int, bytes] = field(default_factory=dict)
    slices: list[bytes] = field(default_factory=list)


def read_series(payload: Payload, modality: str) -> Iterator[Instance]:
    """Yield the volumes of a series: echoes and time points are volumes of their own; localizers are none.

    With the policy "drop-study" one bad slice raises DataFault "bad-slice"; with "drop-slice" it is left out, and the
    gap is filled from its neighbours. Raises DataFault "no-volume" where the slices make none.
    """
    strict = is_strict(payload)
    buffer = FileBuffer()
    slices, header, faults, codes = _headers(payload, modality, buffer)
    if header is None:
        raise faults[0]
    stacking = stack_slices([piece.attributes for piece in slices])
    # Numbered with those that are no volumes, so that a volume keeps its number whatever stands beside it.
    volumes = [(number, one) for number, one in enumerate(stacking.stacks, start=1) if one.is_volume]
    if faults and (strict or not volumes):
        raise DataFault(
            "bad-slice", f"{len(faults)} of {len(payload.contents)} files, the first: {faults[0].reason}"
        )
    if strict:
        _refuse_flaws(stacking.left_out, [one for _, one in volumes])
    if not volumes:
        raise _no_volume(stacking, len(slices))
    # What was left out has no row of its own: the volumes of its series have the findings.
    dropped = ("slices-dropped",) if faults or stacking.left_out else ()
    codes = (*codes, *dropped, *stacking.left_out_findings)
    for number, one in volumes:
        volume = _volume(payload, header, [slices[n] for n in one.order], one, buffer)
        suffix = f"/{number}" if len(stacking.stacks) > 1 else ""
        yield replace(
            volume,
            sop_instance_uid=volume.sop_instance_uid + suffix,
            findings=tuple(dict.fromkeys((*volume.findings, *codes))),
        )


def _no_volume(stacking: Stacking, total: int) -> DataFault:
    unplaced = sum(reason in FLAWS for _, reason in stacking.left_out)
    if unplaced:
        return DataFault("no-geometry", f"{unplaced} of {total} slices do not tell where they lie")
    findings = ", ".join(stacking.left_out_findings)
    slices = "1 slice makes" if total == 1 else f"{total} slices make"
    return DataFault("no-volume", f"{slices} no volume: {findings}")


def is_strict(payload: Payload) -> bool:
    """Return whether one bad slice costs its volume."""
    return dict(payload.metadata).get("bad-slice", DROP_STUDY) == DROP_STUDY


def _headers(
    payload: Payload, modality: str, buffer: FileBuffer
) -> tuple[list[Slice], Header | None, list[DataFault], tuple[str, ...]]:
    """Return the slices, the header of the first, why files are no slices, and the findings about the pixel data."""
    slices: list[Slice] = []
    faults: list[DataFault] = []
    findings: dict[str, None] = {}
    header, strangers = None, 0
    for number, content in enumerate(payload.contents):
        try:
            opened = open_object(buffer.load(content, LIMITS.file_bytes))
            own = read_header(opened.attributes, modality, has_pixels=bool(opened.pixels))
            frames = frames_of(opened)
            findings |= dict.fromkeys(check_present(opened, frames.layout))
            slices += [Slice(number, n, one) for n, one in enumerate(frames.slice_attributes())]
            header = header or own
            strangers += (own.patient_id, own.study_uid) != (header.patient_id, header.study_uid)
        except DataFault as fault:
            if fault.reason not in NOT_A_SLICE or len(payload.contents) == 1:
                faults.append(fault)
    if strangers:
        # A volume of two patients would be worse than none, and it is not known whose the series is.
        raise DataFault("bad-slice", f"{strangers} files are of another patient or study than the first")
    if header is None and not faults:
        faults.append(DataFault("no-pixels"))
    return slices, header, faults, tuple(findings)


def _refuse_flaws(left: Sequence[tuple[int, str]], stacks: Sequence[SliceStack]) -> None:
    reasons = [reason for _, reason in left]
    codes = [finding.code for one in stacks for finding in one.findings]
    flaws = sorted(FLAWS & {*reasons, *codes})
    if flaws:
        raise DataFault("bad-slice", f"the slices make no whole volume: {', '.join(flaws)}")


def _volume(
    payload: Payload,
    header: Header,
    slices: list[Slice],
    one: SliceStack,
    buffer: FileBuffer,
) -> Instance:
    digests = Digests()
    codes = dict.fromkeys(finding.code for finding in one.findings)
    references = {text(piece.attributes, "FrameOfReferenceUID") for piece in slices}
    images = _images(payload, slices, one.places, buffer, digests)
    image, places = _assemble(images, one, known=not UNKNOWN_MM & {*codes})
    uid_of = {
        at: text(piece.attributes, "SOPInstanceUID") for at, piece in zip(one.places, slices, strict=True)
    }
    return Instance(
        patient_id=header.patient_id,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_instance_uid=header.series_uid,
        image=image,
        content_blake3=digest_of_all(digests.files.values()).hex(),
        pixel_blake3=digest_of_all(digests.slices).hex(),
        institution=header.institution,
        frame_of_reference_uid=references.pop() if len(references) == 1 else "",
        slice_uids=tuple(uid_of[at] if at in places else "" for at in range(places[0], places[-1] + 1)),
        attributes={**header.attributes, "spacing_mm": one.spacing_mm[1]},
        findings=(
            *(codes if len(places) == len(one.places) else codes | {"gap": None, "slices-dropped": None}),
            *image_findings(image),
        ),
    )


def _images(
    payload: Payload, slices: list[Slice], places: Sequence[int], buffer: FileBuffer, digests: Digests
) -> Iterator[tuple[int, Image | DataFault]]:
    """Yield the place of each slice and its image, or its fault; an image is valid until the next one."""
    frames, at = None, -1
    for piece, place in zip(slices, places, strict=True):
        try:
            if frames is None or piece.content != at:
                frames, at = None, piece.content
                data = buffer.load(payload.contents[at], LIMITS.file_bytes)
                frames = frames_of(open_object(data))
                digests.files[at] = file_digest(data)
            image: Image | DataFault = _frame(frames, piece.frame, digests)
        except DataFault as fault:
            image = DataFault("bad-slice", f"1 of {len(slices)} slices: {fault.reason}")
            if is_strict(payload):
                raise image from None
        yield place, image


def _frame(frames: Frames, index: int, digests: Digests) -> Image:
    stored = frames.stored(index)
    image = frame_image(frames.opened, frames.layout, stored, index)
    digests.slices.append(pixel_digest(allocated(stored, frames.layout)))
    return image


def _assemble(
    images: Iterator[tuple[int, Image | DataFault]], one: SliceStack, *, known: bool
) -> tuple[Image, Sequence[int]]:
    """Return the slices at their places in one array of modality units, and the places of those without a fault."""
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
        mask = image.padded
        volume[place] = image.values if mask is None else np.where(mask, np.float32(PADDED), image.values)
        places.append(place)
    if first is None or len(places) < 2:
        # One slice that is left of several would be drawn out over all slices of a model.
        raise fault
    fill_gaps(volume, places)
    volume = volume[places[0] : places[-1] + 1]
    whole = Image(
        stored=volume,
        vois=first.vois,
        inverted=first.inverted,
        padding=(PADDED, PADDED) if volume.min() == PADDED else None,
        spacing_mm=one.spacing_mm if known else None,
        affine=_shifted(one.affine, places[0]) if known else None,
    )
    return whole, places


def _shifted(affine: Matrix, slices: int) -> Matrix:
    """Return the affine of a volume without its first slices."""
    matrix = affine.copy()
    matrix[:, 3] = affine @ (0, 0, slices, 1)
    return matrix


def fill_gaps(volume: NDArray[np.float32], places: Sequence[int]) -> None:
    """Fill missing slices from their neighbours in place; raise DataFault "bad-slice" where too many are missing."""
    for before, after in pairwise(places):
        if after - before > FILLED_SLICES + 1:
            missing = after - before - 1
            raise DataFault(
                "bad-slice", f"{missing} slices in a row are missing, {FILLED_SLICES} can be drawn"
            )
        for place in range(before + 1, after):
            share = np.float32((place - before) / (after - before))
            between = volume[before] * (1 - share) + volume[after] * share
            padded = (volume[before] == PADDED) | (volume[after] == PADDED)
            volume[place] = np.where(padded, np.float32(PADDED), between)
