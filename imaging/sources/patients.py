"""Table of the patient of each file, for formats that name no patient: pictures and NIfTI."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imaging.errors import DataFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.label_file import missing_values, open_label_file, plain_file_name
from imaging.sources.protocol import SLIDE_SUFFIXES, Payload, SourceFile, format_of

REMEDY = (
    "give --labels a CSV in UTF-8 whose first line is 'file,PatientID,label' and which has one line for each of "
    "them: the file's name relative to the source, with '/' between folders, whose it is, and what is on it"
)

NO_PATIENT = (
    "has a column 'file' and none that says whose each is: add a column PatientID; "
    "where each picture is of another patient, repeat the file name there"
)

SPECS: Mapping[str, PreprocessSpec] = {
    "picture": PreprocessSpec(modality="OT", window="file"),
    "nifti": PreprocessSpec(kind="volume"),
}


@dataclass(frozen=True, slots=True)
class Patients:
    """The patient of each file by its name, where there is a table; None where the table names two.

    With `slides` the files of slide scanners need a patient too.
    """

    by_file: Mapping[str, str | None] | None = None
    remedy: str = REMEDY
    slides: bool = False

    def default_spec(self) -> PreprocessSpec:
        """Return the preparation of images where none is configured, by the format of most files in the table.

        Pictures keep their grey levels; all else is taken for CT in a soft-tissue window, NIfTI as whole volumes.
        """
        named = Counter(map(self.format_of, self.by_file or ())).most_common(1)
        return SPECS.get(named[0][0], PreprocessSpec()) if named else PreprocessSpec()

    def format_of(self, name: str) -> str:
        """Return the format of a file; one of a slide scanner that nobody asks for is no picture, and is ignored."""
        known = format_of(name)
        if known == "dicom" and (self.slides or (self.by_file and name in self.by_file)):
            return "picture" if name.lower().endswith(SLIDE_SUFFIXES) else known
        return known

    def metadata(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return the `Payload.metadata` of a file; raise DataFault where it needs a patient and has none."""
        if self.format_of(name) == "dicom":
            return ()
        patient = (self.by_file or {}).get(name, "")
        if patient:
            return (("patient", patient),)
        why = "names two patients" if patient is None else "names no patient"
        raise DataFault("missing-identifier", f"the table {why} for this file")

    def payload(self, file: SourceFile, load: Callable[[], Path | bytes]) -> Payload:
        """Return the payload of a file; `load` is not called for one that is refused by its name."""
        if file.name.rpartition("/")[2].upper() == "DICOMDIR":
            raise DataFault("dicomdir")
        metadata = self.metadata(file.name)
        return Payload(
            format=self.format_of(file.name), name=file.name, contents=(load(),), metadata=metadata
        )

    def checked(self, files: Iterator[SourceFile]) -> Iterator[SourceFile]:
        """Yield the files; raise UserFault after them where most need a table and there is none.

        Most and not one: an archive of DICOM may have a few pictures that nobody wants.
        """
        listed = pictures = 0
        for file in files:
            listed += 1
            pictures += self.format_of(file.name) != "dicom"
            yield file
        if self.by_file is None and 2 * pictures > listed:
            raise UserFault(
                f"{pictures} of {listed} files are pictures or NIfTI, which do not say whose they are: {self.remedy}"
            )


def read_patients(table: Path | None) -> Patients:
    """Read the columns `file` and `PatientID` of a CSV; one without a column `file` is about DICOM alone."""
    if table is None:
        return Patients()
    with open_label_file(table) as file:
        if "file" not in file.identifiers:
            return Patients()
        if "patient" not in file.identifiers:
            # For DICOM it may be right: that is known after the listing.
            return Patients(remedy=f"{table.name} {NO_PATIENT}")
        at, whose = file.identifiers["file"], file.identifiers["patient"]
        return Patients(
            _patient_by_file((row[at], row[whose]) for row in file.reader() if max(at, whose) < len(row))
        )


def _patient_by_file(rows: Iterable[tuple[str, str]]) -> Mapping[str, str | None]:
    patients: dict[str, str | None] = {}
    missing = missing_values()
    for file, patient in rows:
        name, value = plain_file_name(file), patient.strip()
        if value.casefold() not in missing and patients.setdefault(name, value) != value:
            patients[name] = None
    return patients
