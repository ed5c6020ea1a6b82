"""Made-up objects with a sentinel in each attribute that must not survive, at every depth, in each encoding."""

import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO

import numpy as np
from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging.deidentify.profile.profile import Row, load_profile

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
DEPTHS = (0, 1, 3, 8)
CARRIER = 0x00082218
"""Anatomic Region Sequence: no row of the table speaks of it, so what lies in it is reached or leaks."""
UID_ROOT = "1.2.826.0.1.3680043.10.777"
REPEATING = {"50xxxxxx": (0x50003000,), "60xx3000": (0x60003000, 0x60FE3000), "60xx4000": (0x60004000,)}
PRIVATE = {0x00091001: "LO", 0x00291008: "UN", 0x7FE11010: "OB", 0x00511019: "SQ"}
PREAMBLE = b"PREAMBLE-SENTINEL"
NOT_IN_A_DATA_SET = (0x0000, 0x0002)
"""Messages of the network (PS3.7), and the file meta group, which is filled by itself."""
UNKNOWN = (0x00180F0F, 0x0010F0F0)
"""Elements of even groups that the dictionary does not know."""
SHAPES = {
    "DA": "{day:%Y%m%d}",
    "DT": "{day:%Y%m%d}{clock:06}.{n:06}",
    "TM": "081517.{n:06}",
    "AS": "{n:03}D",
    "UI": UID_ROOT + ".9.{n}.8",
    "DS": "7.1{n:06}3",
    "IS": "71{n:06}3",
}
"""What a sentinel looks like where its VR has rules (PS3.5 6.2)."""
DAYS_APART = 11
"""A shift that is no multiple of it turns no sentinel's date into another one's."""

RESEARCH: dict[str, object] = {
    "Rows": 16, "Columns": 16, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
    "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelSpacing": [0.683594, 0.683594],
    "ImagerPixelSpacing": [0.2, 0.2], "SliceThickness": 5, "SpacingBetweenSlices": 4.5,
    "ImagePositionPatient": [-175.5, -170.25, 12.5], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "SliceLocation": 12.5, "GantryDetectorTilt": -7.5, "RescaleSlope": 0.5, "RescaleIntercept": -1024,
    "RescaleType": "HU", "WindowCenter": [40, 300], "WindowWidth": [400, 1500], "VOILUTFunction": "LINEAR",
    "KVP": 120, "XRayTubeCurrent": 185, "ExposureTime": 750, "Exposure": 92, "ConvolutionKernel": "B31f",
    "FilterType": "FLAT", "ReconstructionDiameter": 350, "DataCollectionDiameter": 500, "Modality": "CT",
    "BodyPartExamined": "CHEST", "PatientPosition": "HFS", "ViewPosition": "AP", "ImageLaterality": "L",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "EchoTime": 4.6, "RepetitionTime": 550.5, "FlipAngle": 90,
    "MagneticFieldStrength": 1.5, "Manufacturer": "ACME Imaging", "InstanceNumber": 7,
}  # fmt: skip
"""The 42 attributes without which an image is of no use to research, with a value each."""


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A value that must be gone: where it was planted, and its bytes."""

    row: str
    depth: int
    vr: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Planted:
    """An object as a file, and what was planted in it."""

    data: bytes
    sentinels: tuple[Sentinel, ...]


def planted(syntax: str) -> Planted:
    """Return an object with a sentinel in each row of the table at each depth, and wherever else one can hide."""
    numbers = iter(range(1, 1_000_000))
    sentinels: list[Sentinel] = []
    order = ">" if syntax == "big endian" else "<"
    with unchecked():
        top = base()
        for depth in DEPTHS:
            item = _at_depth(top, depth)
            _fill(item, depth, numbers, sentinels, order)
            _fill_private(item, depth, numbers, sentinels)
        top.file_meta = _meta(top, SYNTAXES[syntax], sentinels)
        sentinels.append(Sentinel("preamble", 0, "OB", PREAMBLE))
        top.preamble = PREAMBLE.ljust(128, b"\0")
        buffer = BytesIO()
        top.save_as(buffer, enforce_file_format=True)
    return Planted(buffer.getvalue(), tuple(sentinels))


@contextmanager
def unchecked() -> Iterator[None]:
    """Let pydicom write what it would warn of."""
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    try:
        yield
    finally:
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


def leaked(output: bytes, sentinels: Iterable[Sentinel]) -> list[Sentinel]:
    """Return the sentinels whose bytes stand in a file, or in what its deflated data set becomes."""
    whole = output + inflated(output)
    return [one for one in sentinels if _stands(one, whole)]


def inflated(output: bytes) -> bytes:
    """Return the data set of a deflated file, nothing of others."""
    dataset = dcmread(BytesIO(output), specific_tags=["SOPClassUID"], force=True)
    if dataset.file_meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return b""
    start = 144 + dataset.file_meta.FileMetaInformationGroupLength
    return zlib.decompress(output[start:], -zlib.MAX_WBITS)


def lost(before: bytes, after: bytes) -> list[str]:
    """Return which attributes of `RESEARCH` are not what they were."""
    old, new = (dcmread(BytesIO(data), force=True) for data in (before, after))
    return [keyword for keyword in RESEARCH if new.get(keyword) != old.get(keyword)]


def _stands(one: Sentinel, whole: bytes) -> bool:
    if one.vr not in ("DA", "AS"):
        return one.raw in whole
    # Eight digits stand in long numbers by chance, but not at their beginning.
    return re.search(rb"(?<![0-9.])" + re.escape(one.raw), whole) is not None


def base(patient: str = "PID-4711-0815", number: int = 0) -> Dataset:
    """Return a small CT image with the 42 attributes of `RESEARCH` and pixels drawn from its number."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{UID_ROOT}.1.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID_ROOT}.2", f"{UID_ROOT}.3"
    dataset.FrameOfReferenceUID = f"{UID_ROOT}.4"
    dataset.PatientID, dataset.PatientName = patient, "Mustermann^Erika"
    for keyword, value in RESEARCH.items():
        setattr(dataset, keyword, value)
    # No text: what looks for it must find none.
    pixels = np.random.default_rng(number).integers(0, 4096, (16, 16)).astype(np.uint16)
    dataset.add(DataElement(0x7FE00010, "OW", pixels.tobytes()))
    return dataset


def _fill(item: Dataset, depth: int, numbers: Iterator[int], sentinels: list[Sentinel], order: str) -> None:
    for row in load_profile().rows:
        for tag in _tags(row):
            if tag >> 16 in NOT_IN_A_DATA_SET:
                continue
            number = next(numbers)
            vr = _vr(tag)
            value, raw = _value(vr, number, order)
            item[tag] = DataElement(tag, vr, _nested(value) if vr == "SQ" else value)
            sentinels.append(Sentinel(row.name, depth, vr, raw))
    for tag in UNKNOWN:
        value, raw = _value("UN", next(numbers))
        item[tag] = DataElement(tag, "UN", value)
        sentinels.append(Sentinel("unknown element", depth, "UN", raw))


def _fill_private(item: Dataset, depth: int, numbers: Iterator[int], sentinels: list[Sentinel]) -> None:
    for tag, vr in PRIVATE.items():
        value, raw = _value(vr, next(numbers))
        item[tag] = DataElement(tag, vr, _nested(value) if vr == "SQ" else value)
        creator = tag & 0xFFFF0000 | tag >> 8 & 0xFF
        item[creator] = DataElement(creator, "LO", "ACME PRIVATE")
        sentinels.append(Sentinel("private element", depth, vr, raw))


def _meta(top: Dataset, syntax: UID, sentinels: list[Sentinel]) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = top.SOPClassUID, top.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID, meta.ImplementationVersionName = f"{UID_ROOT}.5.1", "SENTVERSION"
    meta.SourceApplicationEntityTitle = "SENTAE"
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = f"{UID_ROOT}.5.2", b"SENTINFORMATION!"
    for element in meta:
        if element.keyword not in ("MediaStorageSOPClassUID", "TransferSyntaxUID"):
            raw = element.value if isinstance(element.value, bytes) else str(element.value).encode()
            sentinels.append(Sentinel(f"meta: {element.keyword}", 0, element.VR, raw))
    return meta


def _nested(value: object) -> Sequence:
    item = Dataset()
    item[0x00104000] = DataElement(0x00104000, "LT", value)
    return Sequence([item])


def _tags(row: Row) -> tuple[int, ...]:
    if row.tag in REPEATING:
        return REPEATING[row.tag]
    try:
        return (int(row.tag, 16),)
    except ValueError:
        return ()


def _vr(tag: int) -> str:
    try:
        return dictionary_VR(tag).partition(" ")[0]
    except KeyError:
        return "UN"


def _value(vr: str, number: int, order: str = "<") -> tuple[object, bytes]:
    """Return a value that a VR allows and that is met nowhere else, and the bytes by which it is known."""
    if vr in ("US", "SS"):
        few = [47, 11, number, 8]
        return few, np.array(few, order + "u2").tobytes()
    text = SHAPES.get(vr, "SENT{n:06}XY").format(
        n=number, day=date(1925, 1, 1) + timedelta(days=DAYS_APART * number), clock=number % 240_000
    )
    raw = (text[4:] if vr == "TM" else text).encode()
    return (raw if vr in ("OB", "OW", "UN") else text), raw


def _at_depth(top: Dataset, depth: int) -> Dataset:
    """Return an item that lies so many sequences deep, with private elements."""
    item = top
    for _ in range(depth):
        carrier = item.get(CARRIER)
        if carrier is None:
            nested = Dataset()
            nested.CodeValue, nested.CodingSchemeDesignator, nested.CodeMeaning = "T-D4000", "SRT", "Abdomen"
            item[CARRIER] = DataElement(CARRIER, "SQ", Sequence([nested]))
        item = item[CARRIER].value[0]
    return item
