"""Sources, segmentations and structure sets for tests of masks."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, RTStructureSetStorage, SegmentationStorage

from imaging.annotations.masks.mask import MaskClasses, MaskTarget
from imaging.image.source_grid import SourceGrid
from tests.dicom_objects import dataset, file_bytes
from tests.slices import OBLIQUE

CLASSES = MaskClasses(names=("blood pool", "myocardium"))
FRAME_OF_REFERENCE = "1.2.9"
POSITION, SPACING, STEP = np.array([-10.0, 20.0, 30.0]), (0.8, 0.5), 3.0
ROWS, COLUMNS = 5, 7
"""35 pixels: no multiple of 8, so that frames of single bits begin inside of bytes."""
ROW, COLUMN = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
NORMAL = np.cross(ROW, COLUMN)


def position(number: float) -> NDArray[np.float64]:
    """Return the position of a slice of the volume."""
    return POSITION + number * STEP * NORMAL


def grid(slices: int = 4, rows: int = ROWS, columns: int = COLUMNS) -> SourceGrid:
    """Return the grid of an oblique volume whose pixels are not square."""
    affine = np.eye(4)
    affine[:3] = np.stack([ROW * SPACING[1], COLUMN * SPACING[0], NORMAL * STEP, POSITION], axis=1)
    return SourceGrid((slices, rows, columns), (STEP, *SPACING), affine)


def slice_grid(number: int, rows: int = ROWS, columns: int = COLUMNS) -> SourceGrid:
    """Return the grid of one slice of the volume."""
    affine = np.eye(4)
    affine[:3] = np.stack([ROW * SPACING[1], COLUMN * SPACING[0], NORMAL, position(number)], axis=1)
    return SourceGrid((rows, columns), SPACING, affine)


def volume(slices: int = 4, **changes: Any) -> MaskTarget:
    """Return the volume as the target of a mask."""
    plain = {
        "grid": grid(slices),
        "instances": tuple(uid(n) for n in range(slices)),
        "frame_of_reference_uid": FRAME_OF_REFERENCE,
    }
    return MaskTarget(**plain | changes)


def one_slice(number: int, **changes: Any) -> MaskTarget:
    """Return one slice of the volume as the target of a mask."""
    plain = {
        "grid": slice_grid(number),
        "instances": (uid(number),),
        "frame_of_reference_uid": FRAME_OF_REFERENCE,
    }
    return MaskTarget(**plain | changes)


def uid(number: int) -> str:
    return f"1.2.3.{number + 1}"


def source(number: int, rows: int = ROWS, columns: int = COLUMNS, **changes: Any) -> Dataset:
    """Return one slice as an image object, with a patient."""
    plain = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": uid(number),
        "ImagePositionPatient": position(number).round(6).tolist(),
        "ImageOrientationPatient": list(OBLIQUE),
        "PixelSpacing": list(SPACING),
        "SliceThickness": STEP,
        "FrameOfReferenceUID": FRAME_OF_REFERENCE,
        "PatientName": "Doe^Jane",
        "PatientID": "P-77",
        "PatientBirthDate": "19500101",
        "InstitutionName": "Harbour",
        "AccessionNumber": "A-77",
        "StudyDate": "20200102",
        "InstanceNumber": number + 1,
    }
    return dataset(np.zeros((rows, columns), np.uint16), **plain | changes)


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def group(number: float, segment: int | None, **changes: Any) -> Dataset:
    """Return the functional groups of a frame; `segment` is None in label maps."""
    made = item(
        PlanePositionSequence=Items([item(ImagePositionPatient=position(number).round(6).tolist())]),
        **changes,
    )
    if segment is not None:
        made.SegmentIdentificationSequence = Items([item(ReferencedSegmentNumber=segment)])
    return made


def derived_from(number: int) -> dict[str, Any]:
    """Return the functional group that names the image of a frame."""
    image = item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=uid(number))
    return {"DerivationImageSequence": Items([item(SourceImageSequence=Items([image]))])}


def seg(
    frames: NDArray[np.uint8],
    groups: Sequence[Dataset],
    segments: Iterable[tuple[int, str]] = ((1, "Blood Pool"), (2, "Myocardium")),
    kind: str = "BINARY",
    orientation: Sequence[float] = OBLIQUE,
    **changes: Any,
) -> bytes:
    """Return a segmentation of frames (n, rows, columns)."""
    binary = kind == "BINARY"
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes() if binary else frames.tobytes()
    shared = item(
        PlaneOrientationSequence=Items([item(ImageOrientationPatient=list(orientation))]),
        PixelMeasuresSequence=Items([item(PixelSpacing=list(SPACING), SliceThickness=STEP)]),
    )
    plain = {
        "SOPClassUID": SegmentationStorage if kind != "LABELMAP" else "1.2.840.10008.5.1.4.1.1.66.7",
        "Modality": "SEG",
        "SegmentationType": kind,
        "NumberOfFrames": len(frames),
        "BitsAllocated": 1 if binary else 8,
        "BitsStored": 1 if binary else 8,
        "FrameOfReferenceUID": FRAME_OF_REFERENCE,
        "MaximumFractionalValue": 200 if kind == "FRACTIONAL" else None,
        "SegmentSequence": Items(
            [item(SegmentNumber=number, SegmentLabel=label) for number, label in segments]
        ),
        "SharedFunctionalGroupsSequence": Items([shared]),
        "PerFrameFunctionalGroupsSequence": Items(groups),
        "PixelData": packed + bytes(len(packed) % 2),
    }
    return file_bytes(dataset(frames, **plain | changes))


Region = tuple[int, str, Sequence[Dataset]]


def contour(number: float, points: Any, **changes: Any) -> Dataset:
    """Return a contour of points (column, row) in pixels of a slice."""
    at = np.array(points, np.float64)
    mm = position(number) + at[:, :1] * SPACING[1] * ROW + at[:, 1:] * SPACING[0] * COLUMN
    plain = {
        "ContourGeometricType": "CLOSED_PLANAR",
        "NumberOfContourPoints": len(at),
        "ContourData": mm.round(6).ravel().tolist(),
    }
    return item(**plain | changes)


def named_image(number: int) -> dict[str, Any]:
    image = item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=uid(number))
    return {"ContourImageSequence": Items([image])}


def rtstruct(*regions: Region, frame_of_reference: str = FRAME_OF_REFERENCE, **changes: Any) -> bytes:
    """Return a structure set of regions: number, name and contours."""
    plain = {
        "SOPClassUID": RTStructureSetStorage,
        "SOPInstanceUID": "1.2.4",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.5",
        "PatientID": "P",
        "Modality": "RTSTRUCT",
        "StructureSetROISequence": Items(
            [
                item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=frame_of_reference)
                for n, name, _ in regions
            ]
        ),
        "ROIContourSequence": Items(
            [
                item(ReferencedROINumber=n, **({"ContourSequence": Items(list(some))} if some else {}))
                for n, _, some in regions
            ]
        ),
    }
    return file_bytes(item(**plain | changes))
