"""Owns what is in a source, counted: patients, studies, series, modalities, syntaxes, problems."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from pydicom.uid import UID, AllTransferSyntaxes

from imaging.dicom.attributes import Attributes, Value, first, text, whole
from imaging.dicom.header import CODE_FORM
from imaging.dicom.volume import stack
from imaging.formats.peek import Glance
from imaging.pseudonyms import canonical_patient_id
from imaging.sources.protocol import SourceFile

OTHER = "(none)"
GEOMETRY = (
    *(
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "Rows",
        "Columns",
        "ImagePositionPatient",
        "ImageType",
        "StackID",
    ),
    *("ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
    *("PixelAspectRatio", "SliceThickness", "SpacingBetweenSlices", "InstanceNumber", "AcquisitionNumber"),
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "EchoNumbers", "EchoTime"),
    *("EffectiveEchoTime", "DiffusionBValue"),
)
"""What `stack` looks at: all that is kept of a file until its series is complete."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The counts; none of them is an identifier."""

    files: int = 0
    size_bytes: int = 0
    patients: int = 0
    patient_variants: int = 0
    """PatientIDs that differ from another in zeros, case or blanks alone."""
    studies: int = 0
    series: int = 0
    frames: int = 0
    volumes: int = 0
    modalities: Counter[str] = field(default_factory=Counter)
    syntaxes: Counter[str] = field(default_factory=Counter)
    photometrics: Counter[str] = field(default_factory=Counter)
    manufacturers: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Tally:
    """An overview while it is being counted; identifiers are held here and not handed on."""

    files: int = 0
    size_bytes: int = 0
    frames: int = 0
    patients: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    series: dict[str, list[tuple[Value | None, ...]]] = field(default_factory=dict)
    same: dict[Value, Value] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, file: SourceFile, seen: Glance) -> None:
        """Count one file."""
        self.files += 1
        self.size_bytes += file.size_bytes
        self._count("formats", seen.format)
        if seen.reason:
            self._count("problems", seen.reason)
        elif seen.format == "dicom":
            self._add_object(seen)

    def _add_object(self, seen: Glance) -> None:
        told = seen.attributes
        self.patients.add(text(told, "PatientID"))
        self.studies.add(text(told, "StudyInstanceUID"))
        self._count("modalities", _code(told, "Modality"))
        if not seen.has_pixels:
            self._count("problems", "no-pixels")
            return
        self.frames += whole(told, "NumberOfFrames", 1) or 1
        self._count("syntaxes", _syntax(seen.syntax))
        self._count("photometrics", _code(told, "PhotometricInterpretation"))
        self._count("manufacturers", text(told, "Manufacturer") or OTHER)
        self._count("sizes", f"{first(told, 'Columns') or 0:g} x {first(told, 'Rows') or 0:g}")
        self._check_identifiers(told)
        if seen.series_uid:
            place = [] if whole(told, "NumberOfFrames", 1) > 1 else [self._geometry(told)]
            self.series.setdefault(seen.series_uid, []).extend(place)

    def _geometry(self, told: Attributes) -> tuple[Value | None, ...]:
        """Return what places a slice; slices of a series share most values, and here the objects too."""
        values = (told.get(name) for name in GEOMETRY)
        return tuple(None if value is None else self.same.setdefault(value, value) for value in values)

    def _check_identifiers(self, told: Attributes) -> None:
        uid = text(told, "SOPInstanceUID")
        if not (uid and text(told, "PatientID") and text(told, "SeriesInstanceUID")):
            self._count("problems", "missing-identifier")
        elif uid in self.objects:
            self._count("problems", "repeated-instance")
        self.objects.add(uid)

    def _count(self, what: str, name: str) -> None:
        self.counts.setdefault(what, Counter())[name] += 1

    def result(self) -> Overview:
        """Return the counts, with what is found when the slices of each series are put together."""
        findings: Counter[str] = Counter()
        volumes = 0
        for places in self.series.values():
            named = (zip(GEOMETRY, place, strict=True) for place in places)
            sorted_ = stack([{name: value for name, value in pairs if value is not None} for pairs in named])
            volumes += len(sorted_.stacks)
            codes = {finding.code for one in sorted_.stacks for finding in one.findings}
            findings.update(codes | {reason for _, reason in sorted_.left})
        return Overview(
            files=self.files,
            size_bytes=self.size_bytes,
            patients=len(self.patients - {""}),
            patient_variants=_variants(self.patients - {""}),
            studies=len(self.studies - {""}),
            series=len(self.series),
            frames=self.frames,
            volumes=volumes,
            findings=findings,
            **self.counts,
        )


def _variants(patients: set[str]) -> int:
    counts = Counter(map(canonical_patient_id, patients))
    return sum(count for count in counts.values() if count > 1)


@cache
def _syntax(uid: str) -> str:
    # Asked by its text first: what is no UID may be any value that slipped into its place, and is quoted.
    return UID(uid).name if uid in AllTransferSyntaxes else OTHER


def _code(told: Attributes, keyword: str) -> str:
    """Return a code string; what is none may be any value that slipped into its place, and is not quoted."""
    found = text(told, keyword)
    return found if found and CODE_FORM.fullmatch(found) else OTHER
