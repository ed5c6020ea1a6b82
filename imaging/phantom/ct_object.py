"""CT image object of a painted slice: vendors and encodings as tables, and the attributes of the object."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from imaging.image.window import Window
from imaging.phantom.anatomy import FIELD_MM
from imaging.phantom.schedule import Study

WINDOW = Window(center=-300, width=1400)
"""The lung window that every file carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How one vendor stores Hounsfield units: stored x slope + intercept."""

    manufacturer: str
    model: str
    slope: float
    intercept: float
    signed: bool


VENDORS = (
    Vendor(manufacturer="SIEMENS", model="Phantom S", slope=1, intercept=-1024, signed=False),
    Vendor(manufacturer="GE MEDICAL SYSTEMS", model="Phantom G", slope=1, intercept=0, signed=True),
    Vendor(manufacturer="Philips", model="Phantom P", slope=0.5, intercept=-1000, signed=False),
)

ENCODINGS: dict[str, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "RLE": RLELossless,
    "deflated": DeflatedExplicitVRLittleEndian,
}
COMPRESSED = frozenset({JPEGLSLossless, JPEG2000Lossless, RLELossless})
MONOCHROME1_EVERY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceIdentity:
    """Identity of a slice: its study, its number in the study, and its own identifiers."""

    study: Study
    number: int
    series_uid: str
    instance_uid: str
    frame_uid: str


def ct_object(hu: NDArray[np.float64], identity: SliceIdentity) -> Dataset:
    """Return a CT Image Storage object (PS3.3 A.3) of (size, size) Hounsfield units."""
    study: Study = identity.study
    vendor = VENDORS[study.number % len(VENDORS)]
    inverted = study.number % MONOCHROME1_EVERY == 0
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(identity.instance_uid)
    _patient_and_study(dataset, study)
    _series_and_frame(dataset, identity, vendor)
    _pixels(dataset, hu, vendor, inverted=inverted)
    # Divided first, so that every vendor meets every encoding.
    encoding = study.number // len(VENDORS) % len(ENCODINGS)
    _encode(dataset, list(ENCODINGS.values())[encoding])
    return dataset


def _patient_and_study(dataset: Dataset, study: Study) -> None:
    patient = study.patient
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = patient.name
    dataset.PatientID = patient.patient_id
    dataset.PatientBirthDate = patient.birth_date
    dataset.PatientSex = patient.sex
    dataset.PatientAddress = f"{patient.number + 1} Harbour Road"
    dataset.StudyInstanceUID = study.uid
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = study.date
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "080000"
    dataset.StudyID = f"{study.number}"
    dataset.AccessionNumber = f"ACC{study.number:08d}"
    dataset.ReferringPhysicianName = "Adeyemi^Grace^^Dr"
    dataset.InstitutionName = "Harbour Hospital"
    dataset.StudyDescription = "CT thorax"
    family, _, given = patient.name.partition("^")
    dataset.ImageComments = f"{given} {family}, born {patient.birth_date}: seen by Dr Adeyemi, please compare"


def _series_and_frame(dataset: Dataset, identity: SliceIdentity, vendor: Vendor) -> None:
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = identity.instance_uid
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = identity.series_uid
    dataset.SeriesNumber = 1
    dataset.FrameOfReferenceUID = identity.frame_uid
    dataset.PositionReferenceIndicator = None
    dataset.Manufacturer = vendor.manufacturer
    dataset.ManufacturerModelName = vendor.model
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = identity.number + 1
    dataset.PatientPosition = "HFS"
    dataset.KVP = 120
    dataset.SliceThickness = 5
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-FIELD_MM / 2, -FIELD_MM / 2, -5.0 * identity.number]


def _pixels(dataset: Dataset, hu: NDArray[np.float64], vendor: Vendor, *, inverted: bool) -> None:
    values = sum(WINDOW.bounds) - hu if inverted else hu
    kind = np.dtype(np.int16 if vendor.signed else np.uint16)
    limits = np.iinfo(kind)
    stored = np.clip(np.rint((values - vendor.intercept) / vendor.slope), limits.min, limits.max).astype(kind)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelSpacing = [round(FIELD_MM / side, 6) for side in stored.shape]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(vendor.signed)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = vendor.slope, vendor.intercept, "HU"
    dataset.WindowCenter, dataset.WindowWidth = WINDOW.center, WINDOW.width
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"


def _encode(dataset: Dataset, syntax: UID) -> None:
    if syntax in COMPRESSED:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
