"""Owns the label table: reading it, joining it to images, and saying what did not fit."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from imaging.deidentify.pseudonyms import Level, Pseudonyms
from imaging.errors import UserFault

LEVELS: dict[str, Level] = {
    "sopinstanceuid": "instance",
    "seriesinstanceuid": "series",
    "studyinstanceuid": "study",
    "patientid": "patient",
    "file": "file",
}
"""Which identifier a column holds, by its name without case, spaces and underscores."""

KEY_OF: Mapping[Level, str] = MappingProxyType(
    {
        "instance": "object_key",
        "series": "series_key",
        "study": "study_key",
        "patient": "patient_key",
        "file": "source_key",
    }
)
"""The column of an example that a label's identifier is looked for in."""

NEGATIVE = frozenset(
    {"0", "absent", "benign", "control", "false", "healthy", "negative", "no", "none", "normal"}
)
"""Names of the class that is not looked for; in a table of two classes it comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Labels by pseudonym; the original identifiers end here."""

    level: Level
    labels: Mapping[str, str]
    lines: Mapping[str, int]
    conflicts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """Which lines of the label table did not fit; the images that did not have it in their rows."""

    lines_without_image: tuple[int, ...] = ()
    lines_in_conflict: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The label of each image, why it has none where it has none ("no-label", "two-labels"), and what did not fit."""

    labels: pa.ChunkedArray
    faults: pa.ChunkedArray
    report: LabelReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a label table are read, and what the first of them identifies."""

    key: str
    level: Level
    label: str


def read_labels(path: Path, pseudonyms: Pseudonyms, column: str | None = None) -> LabelTable:
    """Read a CSV with one identifier column and one label column, both found by name."""
    with _table(path) as reader:
        columns = _columns(path, reader, column)
        # A line is counted as an editor counts it, blank lines and line breaks in quotes included.
        rows = [(reader.line_num, row[columns.key], row[columns.label]) for row in reader]
    return collect_labels(columns.level, rows, pseudonyms)


def find_columns(path: Path, column: str | None = None) -> Columns:
    """Say which columns of a CSV are read, after a look at its first line alone."""
    with _table(path) as reader:
        return _columns(path, reader, column)


def collect_labels(
    level: Level, rows: Iterable[tuple[int, str | None, str | None]], pseudonyms: Pseudonyms
) -> LabelTable:
    """Gather (line, identifier, label) rows; an identifier with two different labels has none."""
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    conflicts = set()
    for line, identifier, label in rows:
        # A path may be written as another system writes it.
        name = (
            (identifier or "").strip().replace("\\", "/").removeprefix("./")
            if level == "file"
            else identifier
        )
        key, value = pseudonyms.key(level, name or ""), (label or "").strip()
        if not value:
            continue
        if labels.setdefault(key, value) != value:
            conflicts.add(key)
        lines.setdefault(key, line)
    kept = {key: label for key, label in labels.items() if key not in conflicts}
    return LabelTable(level=level, labels=kept, lines=lines, conflicts=frozenset(conflicts))


def join(table: LabelTable | None, examples: pa.Table) -> Joined:
    """Label examples by a table, or by what their source says where there is none.

    `examples` have the columns of `imaging.dataset.rows.EXAMPLES`.
    """
    if table is None:
        labels = examples["source_label"]
        return Joined(labels=labels, faults=_faults(pc.is_null(labels), "no-label"), report=LabelReport())
    keys = examples[KEY_OF[table.level]]
    names, values = pa.array(table.labels.keys(), pa.string()), pa.array(table.labels.values(), pa.string())
    disputed = pc.is_in(keys, value_set=pa.array(sorted(table.conflicts), pa.string()))
    lines = pa.array(table.lines.keys(), pa.string())
    faults = pc.coalesce(
        _faults(disputed, "two-labels"), _faults(pc.invert(pc.is_in(keys, value_set=lines)), "no-label")
    )
    unseen = pc.invert(pc.is_in(lines, value_set=pc.unique(keys)))
    report = LabelReport(
        lines_without_image=tuple(pa.array(table.lines.values(), pa.int64()).filter(unseen).to_pylist()),
        lines_in_conflict=tuple(table.lines[key] for key in sorted(table.conflicts)),
    )
    return Joined(labels=values.take(pc.index_in(keys, value_set=names)), faults=faults, report=report)


def _faults(where: pa.ChunkedArray, fault: str) -> pa.ChunkedArray:
    return pc.if_else(where, fault, pa.scalar(None, pa.string()))


def order_classes(labels: Iterable[str], positive: str | None = None) -> tuple[str, ...]:
    """Return the classes in their order; of two, the second is the one that is looked for.

    >>> order_classes(["normal", "lesion", "normal"])
    ('normal', 'lesion')
    >>> order_classes(["10", "9"])
    ('9', '10')
    """
    classes = sorted(
        set(labels), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )
    if positive is not None and positive not in classes:
        raise UserFault(f"positive label {positive!r} is not among the labels {classes}: name one of them")
    if len(classes) == 2:
        named_negative = [name.lower() in NEGATIVE for name in classes]
        guess = classes[0] if named_negative == [False, True] else classes[1]
        classes.sort(key=lambda name: name == (positive or guess))
    return tuple(classes)


@contextmanager
def _table(path: Path) -> Iterator["csv.DictReader[str]"]:
    if not path.is_file():
        raise UserFault(f"no label table at {path}: give --labels the path of a CSV file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield csv.DictReader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        # The error quotes the bytes around it, and they may name a patient.
        raise UserFault(
            f"{path.name} is no CSV in UTF-8 ({type(error).__name__}): save it as 'CSV UTF-8'"
        ) from None


def _columns(path: Path, reader: "csv.DictReader[str]", column: str | None) -> Columns:
    names = list(reader.fieldnames or [])
    key, level = _key_column(path, names)
    return Columns(key=key, level=level, label=_label_column(path, names, key, column))


def _key_column(path: Path, names: list[str]) -> tuple[str, Level]:
    found = {name: _level(name) for name in names}
    # A column `file` wins: beside it PatientID says whose a picture is, not which.
    for name, level in sorted(found.items(), key=lambda item: item[1] != "file"):
        if level is not None:
            return name, level
    # Its first line is not quoted: where the names are missing, it holds a patient's identifier.
    raise UserFault(
        f"{path.name} has {len(names)} columns and none is named as an identifier: its first line must name one "
        "SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID, PatientID or file"
    )


def _level(name: str) -> Level | None:
    return LEVELS.get(name.strip().lower().replace(" ", "").replace("_", ""))


def _label_column(path: Path, names: list[str], key_column: str, wanted: str | None) -> str:
    if wanted is not None:
        if wanted in names:
            return wanted
        raise UserFault(
            f"{path.name} has the columns {names} and no {wanted!r}: give --label-column one of them"
        )
    identifiers = {name for name in names if _level(name) is not None}
    others = [name for name in names if name not in identifiers | {key_column}]
    for name in others:
        if name.strip().lower() == "label":
            return name
    if len(others) == 1:
        return others[0]
    raise UserFault(f"{path.name} has the columns {names} and none is 'label': name one with --label-column")
