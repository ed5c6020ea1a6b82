"""Small study whose objects refer to one another: CT slices, an RT structure set, a segmentation and a report."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedSRStorage, RTStructureSetStorage, SegmentationStorage

from tests.dicom_objects import dataset, ramp

STUDY, FRAME_OF_REFERENCE, SERIES = "1.2.3.10", "1.2.3.20", "1.2.3.30"
SLICES = [f"1.2.3.40.{number}" for number in range(3)]
STRUCTURES, SEGMENTS, REPORT = "1.2.3.50", "1.2.3.60", "1.2.3.70"


def item(**values: object) -> Dataset:
    """Return an item of a sequence."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def study() -> dict[str, Dataset]:
    """Return the objects by their SOPInstanceUID."""
    made = {uid: _slice(uid, number) for number, uid in enumerate(SLICES)}
    return made | {STRUCTURES: _structures(), SEGMENTS: _segments(), REPORT: _report()}


def _object(uid: str, sop_class: str, modality: str, **changes: object) -> Dataset:
    values = {
        "SOPInstanceUID": uid,
        "SOPClassUID": sop_class,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{SERIES}.{modality.encode().hex()[:2]}",
        "PatientID": "4711-42",
        "PatientName": "Doe^Johanna",
        "StudyDate": "20240228",
        "Modality": modality,
    }
    return dataset(ramp((8, 8), np.uint16), **values | changes)


def _slice(uid: str, number: int) -> Dataset:
    place = {"ImagePositionPatient": [0, 0, number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    return _object(uid, CTImageStorage, "CT", FrameOfReferenceUID=FRAME_OF_REFERENCE, **place)


def reference(uid: str, sop_class: str = CTImageStorage) -> Dataset:
    return item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)


def _structures() -> Dataset:
    series = item(SeriesInstanceUID=f"{SERIES}.43", ContourImageSequence=Sequence(map(reference, SLICES)))
    of_study = item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=STUDY,
        RTReferencedSeriesSequence=Sequence([series]),
    )
    frame = item(FrameOfReferenceUID=FRAME_OF_REFERENCE, RTReferencedStudySequence=Sequence([of_study]))
    contour = item(ContourImageSequence=Sequence([reference(SLICES[1])]), ContourData=["1", "2", "1"])
    roi = item(ROINumber=1, ReferencedFrameOfReferenceUID=FRAME_OF_REFERENCE, ROIName="Johanna's liver")
    values = {
        "PixelData": None,
        "StructureSetLabel": "Doe plan",
        "ReferencedFrameOfReferenceSequence": Sequence([frame]),
        "StructureSetROISequence": Sequence([roi]),
        "ROIContourSequence": Sequence([item(ReferencedROINumber=1, ContourSequence=Sequence([contour]))]),
    }
    return _object(STRUCTURES, RTStructureSetStorage, "RTSTRUCT", **values)


def _segments() -> Dataset:
    source = item(SourceImageSequence=Sequence([reference(SLICES[2])]))
    group = item(DerivationImageSequence=Sequence([source]))
    series = item(
        SeriesInstanceUID=f"{SERIES}.43", ReferencedInstanceSequence=Sequence(map(reference, SLICES))
    )
    values = {
        "FrameOfReferenceUID": FRAME_OF_REFERENCE,
        "ReferencedSeriesSequence": Sequence([series]),
        "PerFrameFunctionalGroupsSequence": Sequence([group]),
    }
    return _object(SEGMENTS, SegmentationStorage, "SEG", **values)


def _report() -> Dataset:
    image = item(
        ValueType="IMAGE", RelationshipType="CONTAINS", ReferencedSOPSequence=Sequence([reference(SLICES[0])])
    )
    text = item(ValueType="TEXT", RelationshipType="CONTAINS", TextValue="Johanna Doe has a lesion")
    observer = item(ValueType="PNAME", RelationshipType="HAS OBS CONTEXT", PersonName="Miller^Jane")
    series = item(
        SeriesInstanceUID=f"{SERIES}.53",
        ReferencedSOPSequence=Sequence([reference(SEGMENTS, SegmentationStorage)]),
    )
    evidence = item(StudyInstanceUID=STUDY, ReferencedSeriesSequence=Sequence([series]))
    values = {
        "PixelData": None,
        "ValueType": "CONTAINER",
        "ContentSequence": Sequence([image, text, observer]),
        "CurrentRequestedProcedureEvidenceSequence": Sequence([evidence]),
    }
    return _object(REPORT, EnhancedSRStorage, "SR", **values)
