"""Writer of DICOM SEG: class numbers on the grid of a series become one segmentation object (PS3.3 A.51).

Import this module where a segmentation is written, not before: highdicom takes half a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from typing import Literal

import highdicom
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from imaging.dicom.geometry import COSINE_TOLERANCE
from imaging.dicom.parse import reading
from imaging.errors import UserFault
from imaging.preprocess.inverse import Mask

TISSUE = ("85756007", "SCT", "Tissue")
"""Category and type of a segment of which nothing else is said (PS3.16 CID 7150 and 7166)."""

IDENTITY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)
"""Attributes of patient and study that highdicom would copy from the images; here they come from the caller alone."""
NEEDED = (
    *(
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "Modality",
    ),
    *("Rows", "Columns", "NumberOfFrames", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
)
"""All that is taken from an image, beside the functional groups of GROUPS."""
GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

CodeValue = tuple[str, str, str]
"""Code value, coding scheme and meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Class that is written as a segment: its name, and what it is by a category and a type of SNOMED CT."""

    name: str
    category: CodeValue = TISSUE
    type: CodeValue = TISSUE


@dataclass(frozen=True, slots=True, kw_only=True)
class SegHeader:
    """Header of a segmentation but for its segments: all identifiers are given, none is taken from the images.

    `identity` are attributes of IDENTITY for patient and study, those left out stay empty. `algorithm` and `version`
    name the model. `frame_of_reference_uid` is that of the images where it is "": they must have one then.
    """

    series_uid: str
    sop_instance_uid: str
    created: datetime
    algorithm: str
    version: str
    identity: Mapping[str, str] = field(default_factory=dict)
    frame_of_reference_uid: str = ""
    series_number: int = 1
    instance_number: int = 1
    description: str | None = None


def segmentation_object(
    mask: Mask,
    images: Sequence[Dataset],
    segments: Sequence[Segment],
    header: SegHeader,
    *,
    kind: Literal["BINARY", "LABELMAP"] = "BINARY",
    omit_empty_frames: bool = False,
) -> Dataset:
    """Return the segmentation of a mask (slices, rows, columns), or (rows, columns) of one slice.

    `images` are the objects of one series in the order of the slices, or one object of several frames; their pixels are
    not needed. Segment k + 1 is class k + 1 of the mask. Frames without a pixel are written too, so that what was
    looked at can be told from what was not, and every reader gets all slices; a mask without any pixel is written
    whole in any case. Raises UserFault for images of several series, without a place in the patient, or of another
    size, and for values beyond the segments: there is no segment for what is unknown.
    """
    planes = mask if mask.ndim == 3 else mask[None]
    _check(planes, images, len(segments), header)
    orientation = _orientation(images)
    unknown = sorted({*header.identity} - {*IDENTITY})
    if unknown:
        raise UserFault(f"identity has {unknown}: a segmentation takes {list(IDENTITY)}")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=header.algorithm, family=codes.cid7162.ArtificialIntelligence, version=header.version
    )
    with reading("unsupported", "the segmentation"):
        made: Dataset = highdicom.seg.Segmentation(
            source_images=[_bare(image, header, orientation) for image in images],
            # highdicom refuses integers of 32 and 64 bits.
            pixel_array=np.ascontiguousarray(planes, np.uint8),
            segmentation_type=kind,
            segment_descriptions=[
                highdicom.seg.SegmentDescription(
                    segment_number=number,
                    segment_label=segment.name,
                    segmented_property_category=Code(*segment.category),
                    segmented_property_type=Code(*segment.type),
                    algorithm_type="AUTOMATIC",
                    algorithm_identification=algorithm,
                )
                for number, segment in enumerate(segments, 1)
            ],
            series_instance_uid=header.series_uid,
            series_number=header.series_number,
            sop_instance_uid=header.sop_instance_uid,
            instance_number=header.instance_number,
            manufacturer="radloop",
            manufacturer_model_name=header.algorithm,
            software_versions=header.version,
            device_serial_number="0",
            series_description=header.description,
            omit_empty_frames=omit_empty_frames and bool(planes.any()),
            content_date=header.created.date(),
            content_time=header.created.time(),
        )
    _make_repeatable(made, header.created)
    return made


def _make_repeatable(made: Dataset, created: datetime) -> None:
    """Replace the time of the clock and the random UID that highdicom gives: the same mask makes the same bytes."""
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    for one in made.get("ContributingEquipmentSequence") or []:
        one.ContributionDateTime = created.strftime("%Y%m%d%H%M%S")
    digest = sha256(f"dimensions of {made.SOPInstanceUID}".encode()).digest()
    organization = UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")  # PS3.5 B.2
    for one in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        one.DimensionOrganizationUID = organization


def object_bytes(made: Dataset) -> bytes:
    """Return an object as a whole file."""
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def series_of(images: Sequence[Dataset]) -> dict[str, list[int]]:
    """Return the positions of images by their SeriesInstanceUID: a segmentation is of one series."""
    series: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        series.setdefault(str(image.SeriesInstanceUID), []).append(number)
    return series


def _check(planes: Mask, images: Sequence[Dataset], segments: int, header: SegHeader) -> None:
    count = len(series_of(images))
    if count != 1:
        raise UserFault(
            f"the images are of {count} series: a segmentation is of one, write one for each (series_of)"
        )
    references = {
        header.frame_of_reference_uid or str(image.get("FrameOfReferenceUID", "")) for image in images
    }
    if len(references) > 1:
        raise UserFault(
            f"the images have {len(references)} frames of reference: write a segmentation for each, or give a "
            "frame_of_reference_uid if their positions are of one"
        )
    if "" in references or not all(map(_placed, images)):
        raise UserFault(
            "an image has no FrameOfReferenceUID or no position, as plain radiographs have none: DICOM SEG needs both, "
            "write the mask as PNG"
        )
    frames = int(images[0].get("NumberOfFrames") or 1) if len(images) == 1 else len(images)
    size = (frames, int(images[0].Rows), int(images[0].Columns))
    if planes.shape != size:
        raise UserFault(
            f"the mask has {planes.shape} pixels and the images {size}: bring it to their grid first"
        )
    most = int(planes.max(initial=0))
    if most > segments:
        raise UserFault(
            f"the mask has the value {most} and there are {segments} segments: name a segment for each class, and make "
            "unknown pixels (255) background"
        )


def _orientation(images: Sequence[Dataset]) -> list[float]:
    """Return the orientation of all images: highdicom refuses those that differ in the last digit, which is common."""
    turned = [[float(cosine) for cosine in image.get("ImageOrientationPatient") or ()] for image in images]
    if (
        any(len(one) != len(turned[0]) for one in turned)
        or np.ptp(turned, axis=0).max(initial=0) > COSINE_TOLERANCE
    ):
        raise UserFault("the images are turned differently: write a segmentation for each orientation")
    return turned[0]


def _placed(image: Dataset) -> bool:
    return PER_FRAME in image or all(image.get(f"Image{name}Patient") for name in ("Position", "Orientation"))


def _bare(image: Dataset, header: SegHeader, orientation: Sequence[float]) -> Dataset:
    """Return what a segmentation needs of an image: a header may have anything in any place."""
    bare = Dataset()
    for keyword in NEEDED:
        if keyword in image:
            bare[keyword] = image[keyword]
    for keyword in (SHARED, PER_FRAME):
        if keyword in image:
            setattr(bare, keyword, Items([_bare_group(item) for item in image[keyword].value]))
    if "ImageOrientationPatient" in bare:
        bare.ImageOrientationPatient = list(orientation)
    for keyword in IDENTITY:
        setattr(bare, keyword, header.identity.get(keyword, ""))
    if header.frame_of_reference_uid:
        bare.FrameOfReferenceUID = header.frame_of_reference_uid
    return bare


def _bare_group(group: Dataset) -> Dataset:
    bare = Dataset()
    for keyword in GROUPS:
        if keyword in group:
            bare[keyword] = group[keyword]
    return bare
