"""Made-up objects with identifiers planted in free text, nested and private, and the answers that go with them.

After the MIDI-B challenge (Rutherford et al. 2021, 2025): synthetic identifiers in real attributes, and for each
attribute the action that a de-identification owes it.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from bench.objects import base, unchecked

ROOT = "1.2.826.0.1.3680043.10.888"
FAMILY = (
    "Müller",
    "O'Brien",
    "Kowalski",
    "Nguyen",
    "García",
    "Lindqvist",
    "Okafor",
    "Weiß",
    "Tanaka",
    "Haddad",
)
GIVEN = ("Jürgen", "Siobhan", "Marek", "Thanh", "Lucía", "Björn", "Amina", "Renate", "Kenji", "Leila")
CITIES = ("Rosenheim", "Galway", "Krakow", "Uppsala", "Toledo", "Nagano")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
PLAIN = str.maketrans({"ü": "ue", "ö": "oe", "ß": "ss", "í": "i", "'": ""})
"""How names without ASCII are typed where a keyboard lacks their letters."""
CHARACTER_SETS = ("ISO_IR 192", "ISO_IR 100")
OBJECTS_OF_A_PATIENT = 6
TEXT_LEVEL, SIDE = 2000, 192

Path = tuple[str, ...]

TEXTS: dict[Path, tuple[str, str]] = {
    ("StudyDescription",): ("thorax", "with contrast"),
    ("SeriesDescription",): ("axial", "lung kernel"),
    ("ProtocolName",): ("routine chest", "low dose"),
    ("ImageComments",): ("motion artefact,", "lower lobe not assessable"),
    ("AdditionalPatientHistory",): ("persistent cough", "after surgery"),
    ("RequestAttributesSequence", "ScheduledProcedureStepDescription"): ("follow up", "in three months"),
    ("RequestAttributesSequence", "RequestedProcedureDescription"): ("exclude nodule", "compare with prior"),
}
"""Free texts that stay: the words before what is planted and those after it."""

DATES: tuple[Path, ...] = (
    ("StudyDate",),
    ("SeriesDate",),
    ("AcquisitionDate",),
    ("ContentDate",),
    ("AcquisitionDateTime",),
    ("RequestAttributesSequence", "ScheduledProcedureStepStartDate"),
)
UIDS: tuple[Path, ...] = (
    ("SOPInstanceUID",),
    ("StudyInstanceUID",),
    ("SeriesInstanceUID",),
    ("FrameOfReferenceUID",),
    ("ReferencedImageSequence", "ReferencedSOPInstanceUID"),
    ("DerivationImageSequence", "SourceImageSequence", "ReferencedSOPInstanceUID"),
)
NEVER_EMPTY = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName"),
    *("StudyDate", "Modality", "ImageType", "Rows", "PhotometricInterpretation"),
)


@dataclass(frozen=True, slots=True)
class Person:
    """A made-up patient."""

    family: str
    given: str
    number: str
    birth: date
    accession: str
    phone: str
    city: str
    physician: str


@dataclass(frozen=True, slots=True)
class Exam:
    """An object, its patient, what was planted into which text, and where text was burned in."""

    dataset: Dataset
    data: bytes
    patient: str
    secrets: dict[str, str]
    texts: dict[Path, str]
    ink: NDArray[np.bool_] | None


def person(number: int) -> Person:
    """Return a patient, the same for the same number."""
    rng = np.random.default_rng([7, number])
    return Person(
        family=str(rng.choice(FAMILY)),
        given=str(rng.choice(GIVEN)),
        number=f"00{number:03}{rng.integers(10**4, 10**5)}",
        birth=date(1931, 1, 1) + timedelta(days=int(rng.integers(0, 25_000))),
        accession=f"ACC{rng.integers(10**6, 10**7)}",
        phone=f"+49 30 {rng.integers(10**6, 10**7)}",
        city=str(rng.choice(CITIES)),
        physician=f"{rng.choice(('Abernathy', 'Castellano', 'Zimmermann'))}^{rng.choice(('Ines', 'Oskar'))}^^Dr",
    )


def exam(number: int, *, burned_in: bool = False) -> Exam:
    """Return an object; several have one patient, two studies and references to one another."""
    who, rng = person(number // OBJECTS_OF_A_PATIENT), np.random.default_rng([8, number])
    study = number // 3
    day = date(2019, 1, 1) + timedelta(days=37 * study % 2000)
    dataset = base(patient=who.number, number=number)
    dataset.SpecificCharacterSet = CHARACTER_SETS[number % 2]
    secrets = _identity(dataset, who)
    _references(dataset, number, study)
    _times(dataset, day)
    texts = {}
    for path, (before, after) in TEXTS.items():
        texts[path] = planted = str(rng.choice(_spellings(who, day)))
        put(dataset, path, f"{before} {planted} {after}")
    block = dataset.private_block(0x0029, "ACME CSA", create=True)
    block.add_new(0x10, "LO", f"{who.given} {who.family}")
    block.add_new(0x11, "OB", who.number.encode())
    ink = burn_in(dataset, who, rng) if burned_in else None
    with unchecked():
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
    return Exam(dataset, buffer.getvalue(), who.number, secrets, texts, ink)


def put(dataset: Dataset, path: Path, value: str) -> None:
    """Set an attribute in the first items of sequences, which are made where there are none."""
    *sequences, keyword = path
    for name in sequences:
        if name not in dataset:
            setattr(dataset, name, Sequence([Dataset()]))
        dataset = dataset[name].value[0]
    with unchecked():
        setattr(dataset, keyword, value)


def get(dataset: Dataset, path: Path) -> str | None:
    """Return an attribute in the first items of sequences as a text, None where it is not there."""
    *sequences, keyword = path
    for name in sequences:
        items = dataset.get(name)
        if not items:
            return None
        dataset = items[0]
    value = dataset.get(keyword)
    return None if value is None else str(value)


def burn_in(dataset: Dataset, who: Person, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Write a name and a number into a larger image, and return which pixels they took."""
    ink = np.zeros((SIDE, SIDE), np.uint8)
    for line, identifier in enumerate((f"{who.family.upper()} {who.number}", f"{who.birth:%d.%m.%Y}")):
        text = identifier.encode("ascii", "ignore").decode()
        place = (6, 20 + 24 * line + int(rng.integers(0, 100)))
        cv2.putText(ink, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
    pixels = cv2.GaussianBlur(rng.normal(600, 200, (SIDE, SIDE)), (0, 0), 4).clip(0, 4095).astype(np.uint16)
    pixels[ink > 0] = TEXT_LEVEL
    set_pixels(dataset, pixels)
    return ink > 0


def set_pixels(dataset: Dataset, pixels: NDArray[np.uint16]) -> None:
    """Give an object other pixels."""
    dataset.Rows, dataset.Columns = pixels.shape
    dataset[0x7FE00010] = DataElement(0x7FE00010, "OW", pixels.tobytes())


def _identity(dataset: Dataset, who: Person) -> dict[str, str]:
    secrets = {
        "PatientName": f"{who.family}^{who.given}",
        "PatientBirthDate": f"{who.birth:%Y%m%d}",
        "OtherPatientNames": f"{who.given} {who.family}",
        "PatientTelephoneNumbers": who.phone,
        "PatientAddress": f"Lindenallee 12, {who.city}",
        "AccessionNumber": who.accession,
        "InstitutionName": f"Klinikum {who.city} Nord",
        "ReferringPhysicianName": who.physician,
        "DeviceSerialNumber": f"SN-{who.accession[3:]}-B",
    }
    with unchecked():
        for keyword, value in secrets.items():
            setattr(dataset, keyword, value)
    return secrets | {"PatientID": who.number}


def _references(dataset: Dataset, number: int, study: int) -> None:
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = f"{ROOT}.1.{number}", f"{ROOT}.2.{study}"
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = f"{ROOT}.3.{study}", f"{ROOT}.4.{study}"
    before = f"{ROOT}.1.{number - number % 3}"
    for path in UIDS[4:]:
        put(dataset, (*path[:-1], "ReferencedSOPClassUID"), dataset.SOPClassUID)
        put(dataset, path, before)


def _times(dataset: Dataset, day: date) -> None:
    for place, path in enumerate(DATES):
        clock = "101530.25" if path[-1].endswith("DateTime") else ""
        put(dataset, path, f"{day - timedelta(days=place):%Y%m%d}{clock}")
    dataset.StudyTime = dataset.SeriesTime = "101530"


def _spellings(who: Person, day: date) -> tuple[str, ...]:
    physician = who.physician.split("^")
    return (
        f"{who.given} {who.family}",
        f"{who.family}, {who.given}",
        f"{who.family.upper()}^{who.given.upper()}",
        who.family,
        who.number,
        who.number.lstrip("0"),
        who.accession,
        f"{who.birth:%d.%m.%Y}",
        f"{who.birth:%Y-%m-%d}",
        f"{MONTHS[who.birth.month - 1]} {who.birth.day} {who.birth.year}",
        f"{day:%Y%m%d}",
        f"Klinikum {who.city} Nord",
        who.phone,
        physician[0],
        f"Dr {physician[1]} {physician[0]}",
        f"{who.given}-{who.family}".lower(),
        f"{who.family.translate(PLAIN)} {who.given.translate(PLAIN)}".upper(),
        who.phone.replace(" ", ""),
        f"MRN {who.number}",
        f"{who.accession}/2",
        f"{who.birth:%Y/%m/%d}",
        f"{who.birth.day} {MONTHS[who.birth.month - 1]} {who.birth.year}",
        f"{day:%m/%d/%Y}",
        who.city,
    )
