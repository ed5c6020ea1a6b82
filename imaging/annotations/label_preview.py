"""Preview of a label table beside the headers of a source: which images it would label, before anything is taken in."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imaging.annotations.finding_join import finding_columns, join_findings
from imaging.annotations.finding_table import SIDES, FindingQuery, FindingTables, read_findings
from imaging.annotations.label_join import KEY_OF_LEVEL, LabelReport, join_labels, joined_columns
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
    """What a table would label, in counts; `classes` are files with pixels and `lines` those of the table by label.

    Of findings, `lines` and `classes` count those that are present, and `findings` the files by what is known of each.
    """

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
    findings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class LabelMatcher:
    """Matcher of a label table, or of tables of findings, with the files of a source; identifiers become pseudonyms."""

    table: LabelTable | FindingTables
    pseudonyms: Pseudonyms
    identifiers: Sequence[str]
    column: str
    keys: dict[Level, list[str]] = field(default_factory=dict)

    def add(self, name: str, header: Attributes, patient: str) -> None:
        """Note a file with pixels by its name, its header, which is empty of pictures and NIfTI, and its patient."""
        levels: list[Level] = [level for one in self._tables for level in (one.level, *one.parents)]
        levels.append("patient")
        for level in dict.fromkeys(levels):
            identifier = name if level == "file" else text(header, KEYWORDS[level])
            known = patient if level == "patient" else identifier
            self.keys.setdefault(level, []).append(self.pseudonyms.key(level, known))

    def result(self) -> LabelPreview:
        """Return what the table labels of the noted files; raise UserFault where two contradict each other."""
        columns = {KEY_OF_LEVEL[level]: keys for level, keys in self.keys.items()}
        patients = pa.array(columns.get("patient_key", []), pa.string())
        needed = (
            finding_columns(self.table)
            if isinstance(self.table, FindingTables)
            else joined_columns(self.table)
        )
        images = pa.table({name: pa.array(columns.get(name, []), pa.string()) for name in needed})
        if isinstance(self.table, FindingTables):
            return self._finding_result(self.table, images, patients)
        joined = join_labels(self.table, images)
        return self._preview(
            patients,
            joined.faults,
            joined.report,
            joined.lines_of_others,
            lines=dict(sorted(self.table.counts.items())),
            missing=dict(sorted(self.table.missing.items())),
            classes=dict(sorted(Counter(joined.labels.drop_null().to_pylist()).items())),
        )

    def _finding_result(self, table: FindingTables, images: pa.Table, patients: pa.Array) -> LabelPreview:
        joined, lines = join_findings(table, images), table.lines
        counts = {
            name: {side: int((column == value).sum()) for side, value in SIDES.items()}
            for name, column in zip(table.names, joined.findings.T, strict=True)
        }
        return self._preview(
            patients,
            joined.faults,
            joined.report,
            joined.lines_of_others,
            lines={name: present for name, (present, _, _) in lines.items()},
            missing=table.missing,
            classes={name: count["present"] for name, count in counts.items()},
            findings=counts,
        )

    def _preview(
        self,
        patients: pa.Array,
        faults: pa.ChunkedArray,
        report: LabelReport,
        lines_of_others: Sequence[int],
        **counts: Any,
    ) -> LabelPreview:
        has_label, counted = pc.is_null(faults), Counter(faults.to_pylist())
        return LabelPreview(
            identifiers=self.identifiers,
            column=self.column,
            uneven_lines=sum(one.uneven[0] for one in self._tables),
            files=pc.sum(has_label).as_py() or 0,
            patients=len(pc.unique(patients.filter(has_label.combine_chunks()))),
            files_without_label=counted["no-label"],
            files_in_conflict=counted["two-labels"],
            lines_without_image=len(report.lines_without_image),
            lines_of_others=len(lines_of_others),
            **counts,
        )

    @property
    def _tables(self) -> Sequence[LabelTable]:
        return self.table.tables if isinstance(self.table, FindingTables) else (self.table,)


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


def open_finding_matcher(paths: Sequence[Path], pseudonyms: Pseudonyms, query: FindingQuery) -> LabelMatcher:
    """Return the matcher of tables of findings; raise UserFault as `read_findings` does."""
    table, identifiers = read_findings(paths, pseudonyms, query), list[str]()
    for path in paths:
        with open_label_file(path) as file:
            identifiers += [file.columns[at] for at in file.identifiers.values()]
    column = label_columns(paths[0], query.column) if query.separator is not None else ", ".join(table.names)
    return LabelMatcher(table, pseudonyms, list(dict.fromkeys(identifiers)), column)
