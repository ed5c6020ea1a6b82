"""Schedule of the phantom's hospital: its patients and their studies of each day, drawn from a seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydicom.uid import generate_uid

FAMILY = (
    "Meyer",
    "Okafor",
    "Lindqvist",
    "Rossi",
    "Novak",
    "Tanaka",
    "Haddad",
    "Silva",
    "O'Brien",
    "Kowalski",
)
GIVEN = ("Anna", "Jonas", "Amina", "Peter", "Chiara", "Kenji", "Maria", "Samuel", "Leila", "Ivo")


class PhantomSpec(BaseModel):
    """Size of the made-up hospital."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Everything follows from it.")
    patients: int = Field(60, ge=4, description="Patients of the first day; every second has a lesion.")
    new_patients: int = Field(20, ge=0, description="New patients of each later day.")
    returning: int = Field(5, ge=0, description="Earlier patients who come back on each later day.")
    slices: int = Field(4, ge=1, description="Slices of a study.")
    size_px: int = Field(128, ge=32, le=1024, description="Rows and columns of a slice.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A made-up person."""

    number: int
    name: str
    birth_date: str
    sex: str
    lesion: bool

    @property
    def patient_id(self) -> str:
        """Identifier at the hospital."""
        return f"PH{self.number:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One visit: its patient, its date, and its number, which picks the vendor and the encoding."""

    patient: Patient
    number: int
    date: str
    uid: str

    @property
    def label(self) -> str:
        """Class of its images: "lesion" or "normal"."""
        return "lesion" if self.patient.lesion else "normal"


def studies(spec: PhantomSpec, day: int) -> Iterator[Study]:
    """Yield the studies of a day: one or two of each new patient, one of each who returns."""
    first, count = 0, spec.patients
    if day > 1:
        first, count = spec.patients + (day - 2) * spec.new_patients, spec.new_patients
    for number in range(first, first + count):
        for visit in range(1 + number % 2):
            yield _study(spec, number, visit, day)
    for place in range(spec.returning if day > 1 else 0):
        number = ((day - 2) * spec.returning + place) % first
        yield _study(spec, number, 10 * day + place, day)


def patient(spec: PhantomSpec, number: int) -> Patient:
    """Return a patient, the same on every day."""
    rng = np.random.default_rng([spec.seed, number])
    family, given = rng.choice(FAMILY), rng.choice(GIVEN)
    year, month, day = rng.integers(1935, 1995), rng.integers(1, 13), rng.integers(1, 29)
    return Patient(
        number=number,
        name=f"{family}^{given}",
        birth_date=f"{year}{month:02d}{day:02d}",
        sex=str(rng.choice(["F", "M"])),
        # Pairs alternate, so that visits and lesions do not go together.
        lesion=number % 4 in (1, 2),
    )


def uid(spec: PhantomSpec, *place: object) -> str:
    """Return the UID of a place in the archive, the same for the same seed."""
    # One string: pydicom joins several without a mark between them.
    return str(generate_uid(entropy_srcs=["/".join(map(str, (spec.seed, *place)))]))


def _study(spec: PhantomSpec, number: int, visit: int, day: int) -> Study:
    return Study(
        patient=patient(spec, number),
        number=number * 101 + visit,
        date=f"202601{day:02d}",
        uid=uid(spec, "study", number, visit),
    )
