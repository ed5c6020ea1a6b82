"""Owns the label table: reading it, joining it to images, and saying what did not fit."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from imaging.deidentify.pseudonyms import Level, Pseudonyms
from imaging.errors import UserFault

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

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
    """Labels by pseudonym, each with the first line that has it; the original identifiers end here.

    Three columns, as a table may have a line for each image of an archive. `conflicts` have two labels, and so none.
    """

    level: Level
    keys: pa.Array
    values: pa.Array
    lines: pa.Array
    conflicts: pa.Array


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
        names = next(reader, [])
        columns = _columns(path, names, column)
        # Of columns with one name the last counts.
        key, label = (len(names) - 1 - names[::-1].index(name) for name in (columns.key, columns.label))
        # A line is counted as an editor counts it, blank lines and line breaks in quotes included.
        rows = ((reader.line_num, _cell(row, key), _cell(row, label)) for row in reader)
        return collect_labels(columns.level, rows, pseudonyms)


def find_columns(path: Path, column: str | None = None) -> Columns:
    """Say which columns of a CSV are read, after a look at its first line alone."""
    with _table(path) as reader:
        return _columns(path, next(reader, []), column)


def collect_labels(level: Level, rows: Iterable[tuple[int, str, str]], pseudonyms: Pseudonyms) -> LabelTable:
    """Gather (line, identifier, label) rows; an identifier with two different labels has none."""
    first: dict[str, tuple[str, int]] = {}
    conflicts = set()
    for line, identifier, label in rows:
        if not (value := label.strip()):
            continue
        # A path may be written as another system writes it.
        name = identifier.strip().replace("\\", "/").removeprefix("./") if level == "file" else identifier
        key = pseudonyms.key(level, name)
        if first.setdefault(key, (value, line))[0] != value:
            conflicts.add(key)
    return LabelTable(
        level=level,
        keys=pa.array(first.keys(), pa.string()),
        values=pa.array((value for value, _ in first.values()), pa.string()),
        lines=pa.array((line for _, line in first.values()), pa.int64()),
        conflicts=pa.array(sorted(conflicts), pa.string()),
    )


def join(table: LabelTable | None, examples: pa.Table) -> Joined:
    """Label examples by a table, or by what their source says where there is none.

    `examples` have the columns of `imaging.dataset.rows.EXAMPLES`.
    """
    if table is None:
        labels = examples["source_label"]
        return Joined(labels=labels, faults=_faults(pc.is_null(labels), "no-label"), report=LabelReport())
    keys = examples[KEY_OF[table.level]]
    at = pc.index_in(keys, value_set=table.keys)
    disputed = pc.is_in(keys, value_set=table.conflicts)
    faults = pc.coalesce(_faults(disputed, "two-labels"), _faults(pc.is_null(at), "no-label"))
    unseen = pc.invert(pc.is_in(table.keys, value_set=pc.unique(keys)))
    report = LabelReport(
        lines_without_image=tuple(table.lines.filter(unseen).to_pylist()),
        lines_in_conflict=tuple(
            table.lines.take(pc.index_in(table.conflicts, value_set=table.keys)).to_pylist()
        ),
    )
    labels = pc.if_else(disputed, pa.scalar(None, pa.string()), table.values.take(at))
    return Joined(labels=labels, faults=faults, report=report)


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
def _table(path: Path) -> Iterator["CsvReader"]:
    if not path.is_file():
        raise UserFault(f"no label table at {path}: give --labels the path of a CSV file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield csv.reader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        # The error quotes the bytes around it, and they may name a patient.
        raise UserFault(
            f"{path.name} is no CSV in UTF-8 ({type(error).__name__}): save it as 'CSV UTF-8'"
        ) from None


def _cell(row: list[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _columns(path: Path, names: list[str], column: str | None) -> Columns:
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
