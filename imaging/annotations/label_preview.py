"""Preview of a label table beside the headers of a source: which images it would label, before anything is taken in."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from imaging.annotations.label_join import KEY_OF_LEVEL, join_labels, joined_columns
from imaging.annotations.label_table import LabelTable, label_columns, read_labels
from imaging.dicom.attributes import Attributes, text
from imaging.pseudonyms import Level, Pseudonyms
from imaging.sources.label_file import MISSING, open_label_file

KEYWORDS: Mapping[Level, str] = {
    "instance": "SOPInstanceUID",
    "series": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
    "patient": "PatientID",
}
"""Attribute of a header that is the identifier of a level; that of a file is its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPreview:
    """What a table would label, in counts; `classes` are files with pixels and `lines` those of the table by label."""

    identifiers: Sequence[str]
    column: str
    lines: Mapping[str, int]
    missing: Mapping[str, int]
    uneven_lines: int
    classes: Mapping[str, int]
    files: int
    patients: int
    files_without_label: int
    files_in_conflict: int
    lines_without_image: int
    lines_of_others: int


@dataclass(slots=True)
class LabelMatcher:
    """Matcher of a label table with the files of a source; what is kept of identifiers are pseudonyms."""

    table: LabelTable
    pseudonyms: Pseudonyms
    identifiers: Sequence[str]
    column: str
    keys: dict[Level, list[str]] = field(default_factory=dict)

    def add(self, name: str, header: Attributes, patient: str) -> None:
        """Note a file with pixels by its name, its header, which is empty of pictures and NIfTI, and its patient."""
        levels: list[Level] = [self.table.level, *self.table.parents, "patient"]
        for level in dict.fromkeys(levels):
            identifier = name if level == "file" else text(header, KEYWORDS[level])
            known = patient if level == "patient" else identifier
            self.keys.setdefault(level, []).append(self.pseudonyms.key(level, known))

    def result(self) -> LabelPreview:
        """Return what the table labels of the files that were noted."""
        needed = joined_columns(self.table)
        columns = {KEY_OF_LEVEL[level]: keys for level, keys in self.keys.items()}
        images = pa.table({name: pa.array(columns.get(name, []), pa.string()) for name in needed})
        joined = join_labels(self.table, images)
        has_label = pc.is_valid(joined.labels)
        patients = pa.array(columns.get("patient_key", []), pa.string())
        faults = Counter(joined.faults.to_pylist())
        return LabelPreview(
            identifiers=self.identifiers,
            column=self.column,
            lines=dict(sorted(self.table.counts.items())),
            missing=dict(sorted(self.table.missing.items())),
            uneven_lines=self.table.uneven[0],
            classes=dict(sorted(Counter(joined.labels.drop_null().to_pylist()).items())),
            files=pc.sum(has_label).as_py() or 0,
            patients=len(pc.unique(patients.filter(pc.fill_null(has_label.combine_chunks(), False)))),
            files_without_label=faults["no-label"],
            files_in_conflict=faults["two-labels"],
            lines_without_image=len(joined.report.lines_without_image),
            lines_of_others=len(joined.lines_of_others),
        )


def open_matcher(
    path: Path, pseudonyms: Pseudonyms, column: str | None = None, missing: Sequence[str] = MISSING
) -> LabelMatcher:
    """Return the matcher of a table; raise UserFault as `read_labels` does."""
    label = label_columns(path, column)
    with open_label_file(path) as file:
        identifiers = [file.columns[at] for at in file.identifiers.values()]
    return LabelMatcher(
        read_labels(path, pseudonyms, column, missing=missing), pseudonyms, identifiers, label
    )
