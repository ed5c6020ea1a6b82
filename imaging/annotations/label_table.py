"""Owns the label table: reading it, joining it to images, and saying what did not fit."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.pseudonyms import Level, Pseudonyms

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

READ = pa.schema([("key", pa.string()), ("value", pa.string()), ("line", pa.int64())])
AT_ONCE = 2**12
"""Lines that are held as Python's objects; ten million would take some GB."""
UNSETTLED = 2**17
"""Lines that are held at least before those are dropped that change nothing."""


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
        rows = (
            (reader.line_num, row[key] if key < len(row) else "", row[label])
            for row in reader
            if label < len(row)
        )
        return collect_labels(columns.level, rows, pseudonyms)


def find_columns(path: Path, column: str | None = None) -> Columns:
    """Say which columns of a CSV are read, after a look at its first line alone."""
    with _table(path) as reader:
        return _columns(path, next(reader, []), column)


def collect_labels(level: Level, rows: Iterable[tuple[int, str, str]], pseudonyms: Pseudonyms) -> LabelTable:
    """Gather (line, identifier, label) rows; an identifier with two different labels has none."""
    held, new = [pa.record_batch([[], [], []], schema=READ)], 0
    for batch in _keyed(level, rows, pseudonyms):
        held.append(batch)
        new += batch.num_rows
        if new > max(held[0].num_rows, UNSETTLED):
            held, new = [_settled(pa.concat_batches(held))], 0
    read = pa.concat_batches(held)
    first, other = _lines_by_key(read)
    kept = read if len(first) == len(read) else read.take(first)
    return LabelTable(
        level=level,
        keys=kept["key"],
        values=kept["value"],
        lines=kept["line"],
        conflicts=read["key"].take(other),
    )


def _keyed(
    level: Level, rows: Iterable[tuple[int, str, str]], pseudonyms: Pseudonyms
) -> Iterator[pa.RecordBatch]:
    labelled = ((line, name, value) for line, name, label in rows if (value := label.strip()))
    while some := list(islice(labelled, AT_ONCE)):
        names = [_posix(name) if level == "file" else name for _, name, _ in some]
        columns = (
            pseudonyms.keys(level, names),
            [value for _, _, value in some],
            [line for line, _, _ in some],
        )
        yield pa.record_batch(list(map(pa.array, columns, READ.types)), schema=READ)


def _posix(path: str) -> str:
    """Return a path as it is listed, however another system writes it."""
    return path.strip().replace("\\", "/").removeprefix("./")


def _settled(read: pa.RecordBatch) -> pa.RecordBatch:
    """Drop the lines that change nothing: a table of patients may have a line for each of their images."""
    return read.take(np.sort(np.concatenate(_lines_by_key(read))))


def _lines_by_key(read: pa.RecordBatch) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return where each key is first, in the order of lines, and where it first has another label, in that of keys."""
    # The sort is stable and so leaves lines with one key in their order. Hashes would take three times the memory.
    order = pc.sort_indices(read["key"]).to_numpy()
    ordered = read["key"].take(order)
    new = np.ones(len(order), bool)
    new[1:] = pc.not_equal(ordered[1:], ordered[:-1])
    first, again, key = order[new], order[~new], np.cumsum(new)[~new] - 1
    differs = np.asarray(pc.not_equal(read["value"].take(again), read["value"].take(first[key])), bool)
    other = again[differs][np.unique(key[differs], return_index=True)[1]]
    return np.sort(first), other


def join(table: LabelTable | None, examples: pa.Table) -> Joined:
    """Label examples by a table, or by what their source says where there is none.

    `examples` have the columns of `imaging.dataset.tables.schemas.EXAMPLES`.
    """
    if table is None:
        labels = examples["source_label"]
        return Joined(labels=labels, faults=_faults(pc.is_null(labels), "no-label"), report=LabelReport())
    keys = examples[KEY_OF[table.level]]
    at = pc.index_in(keys, value_set=table.keys)
    disputed = pc.is_in(keys, value_set=table.conflicts)
    faults = pc.coalesce(_faults(disputed, "two-labels"), _faults(pc.is_null(at), "no-label"))
    unseen = np.ones(len(table.keys), np.bool_)
    unseen[at.drop_null().to_numpy()] = False
    report = LabelReport(
        lines_without_image=tuple(table.lines.filter(pa.array(unseen)).to_pylist()),
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
