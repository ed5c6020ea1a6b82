"""Overview of a source in counts: patients, studies, series, modalities, transfer syntaxes, problems."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from imaging.dicom.attributes import Attributes, Value, first, text, whole
from imaging.dicom.codecs import syntax_name
from imaging.dicom.header import CODE_FORM
from imaging.dicom.slice_grouping import STACKING_ATTRIBUTES
from imaging.dicom.stacking import stack_slices
from imaging.formats.peek import HeaderPeek
from imaging.image.instance import SLIDES
from imaging.preprocess.spec import MODALITIES, PreprocessSpec
from imaging.pseudonyms import canonical_patient_id
from imaging.sources.protocol import SourceFile

OTHER = "(none)"
SLIDE_MPP = 0.5
"""Resolution that is proposed for slides: about that of an objective of 20x, which nearly all scanners reach."""


@dataclass(slots=True)
class Overview:
    """Counts of what is in a source; none of them is an identifier."""

    files: int = 0
    size_bytes: int = 0
    patients: int = 0
    patient_variants: int = 0
    """PatientIDs that differ from another in zeros, case or blanks alone."""
    studies: int = 0
    series: int = 0
    frames: int = 0
    volumes: int = 0
    slide_levels: int = 0
    modalities: Counter[str] = field(default_factory=Counter)
    syntaxes: Counter[str] = field(default_factory=Counter)
    photometrics: Counter[str] = field(default_factory=Counter)
    manufacturers: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class OverviewCounter:
    """Counter of the files of a source; identifiers are kept here only and are not in the result.

    `owners` are the patients of files whose format names none, from the label table.
    """

    owners: Mapping[str, str | None] = field(default_factory=dict)
    counted: Overview = field(default_factory=Overview)
    patients: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    series: dict[str, list[tuple[Value | None, ...]]] = field(default_factory=dict)
    shared_values: dict[Value, Value] = field(default_factory=dict)

    def add(self, file: SourceFile, peek: HeaderPeek) -> None:
        """Count one file."""
        self.counted.files += 1
        self.counted.size_bytes += file.size_bytes
        self.counted.formats[peek.format] += 1
        if peek.reason:
            self.counted.problems[peek.reason] += 1
        elif peek.format == "dicom":
            self._add_object(peek)
        else:
            self.patients.add(self.patient_of(file, peek))
            self._add_images(peek)

    def patient_of(self, file: SourceFile, peek: HeaderPeek) -> str:
        """Return the patient of a file by its header or by the table; empty where it is not known."""
        return (
            text(peek.attributes, "PatientID") if peek.format == "dicom" else self.owners.get(file.name) or ""
        )

    def _add_object(self, peek: HeaderPeek) -> None:
        header, counted = peek.attributes, self.counted
        self.patients.add(text(header, "PatientID"))
        self.studies.add(text(header, "StudyInstanceUID"))
        counted.modalities[_code(header, "Modality")] += 1
        counted.slide_levels += "TotalPixelMatrixColumns" in header
        if not peek.has_pixels:
            counted.problems["no-pixels"] += 1
            return
        # As problems: they are of files, not of series.
        counted.problems.update(peek.findings)
        counted.syntaxes[syntax_name(peek.syntax) or OTHER] += 1
        counted.photometrics[_code(header, "PhotometricInterpretation")] += 1
        counted.manufacturers[text(header, "Manufacturer") or OTHER] += 1
        self._add_images(peek)
        self._check_identifiers(header)
        if peek.series_uid:
            place = [] if whole(header, "NumberOfFrames", 1) > 1 else [self._geometry(header)]
            self.series.setdefault(peek.series_uid, []).extend(place)

    def _add_images(self, peek: HeaderPeek) -> None:
        header, counted = peek.attributes, self.counted
        counted.frames += whole(header, "NumberOfFrames", 1) or 1
        counted.volumes += peek.volumes
        columns, rows = first(header, "Columns"), first(header, "Rows")
        if columns or rows or peek.format == "dicom":
            counted.sizes[f"{columns or 0:g} x {rows or 0:g}"] += 1

    def _geometry(self, header: Attributes) -> tuple[Value | None, ...]:
        """Return the attributes that stacking needs; equal values of different slices share one object in memory."""
        values = (header.get(name) for name in STACKING_ATTRIBUTES)
        return tuple(
            None if value is None else self.shared_values.setdefault(value, value) for value in values
        )

    def _check_identifiers(self, header: Attributes) -> None:
        uid = text(header, "SOPInstanceUID")
        if not (uid and text(header, "PatientID") and text(header, "SeriesInstanceUID")):
            self.counted.problems["missing-identifier"] += 1
        elif uid in self.objects:
            self.counted.problems["repeated-instance"] += 1
        self.objects.add(uid)

    def result(self) -> Overview:
        """Return the counts, with the findings about the volumes of each series."""
        findings: Counter[str] = Counter()
        volumes = self.counted.volumes
        for places in self.series.values():
            named = (zip(STACKING_ATTRIBUTES, place, strict=True) for place in places)
            stacking = stack_slices(
                [{name: value for name, value in pairs if value is not None} for pairs in named]
            )
            volumes += sum(one.is_volume for one in stacking.stacks)
            codes = {finding.code for one in stacking.stacks for finding in one.findings}
            findings.update(codes | {reason for _, reason in stacking.left_out})
        return replace(
            self.counted,
            patients=len(self.patients - {""}),
            patient_variants=_variants(self.patients - {""}),
            studies=len(self.studies - {""}),
            series=len(self.series),
            volumes=volumes,
            findings=findings,
        )


def proposed_configuration(overview: Overview) -> dict[str, dict[str, str | float]]:
    """Return the configuration that takes in most of a source: its most frequent modality, with that one's window.

    Pictures and NIfTI files state no modality and count as other (OT).

    >>> proposed_configuration(Overview(modalities=Counter({"SR": 9, "MR": 5, "CT": 2})))
    {'preprocess': {'modality': 'MR', 'window': 'auto'}}
    """
    counts = {name: count for name, count in overview.modalities.items() if name in MODALITIES}
    if not counts and not overview.formats.keys() & {"nifti", "picture"}:
        return {}
    spec = PreprocessSpec(modality=max(counts, key=lambda name: counts[name], default="OT"))
    slides = {"slide_mpp": SLIDE_MPP} if spec.modality == SLIDES and overview.slide_levels else {}
    return {"preprocess": {"modality": spec.modality, "window": spec.window_text, **slides}}


def _variants(patients: set[str]) -> int:
    counts = Counter(map(canonical_patient_id, patients))
    return sum(count for count in counts.values() if count > 1)


def _code(header: Attributes, keyword: str) -> str:
    """Return a code string; any other value may be an identifier in the wrong place, and is not shown."""
    value = text(header, keyword)
    return value if value and CODE_FORM.fullmatch(value) else OTHER
