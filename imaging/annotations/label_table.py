"""Label table of a person: it is read from a CSV, joined to the examples, and its unused lines are reported."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.pseudonyms import Level, Pseudonyms
from imaging.sources.patients import open_csv, plain_column, plain_file_name

LEVEL_OF_COLUMN: Mapping[str, Level] = {
    "sopinstanceuid": "instance",
    "seriesinstanceuid": "series",
    "studyinstanceuid": "study",
    "patientid": "patient",
    "file": "file",
}
"""Level of the identifiers in a column of the CSV, by its name without case, spaces and underscores."""

KEY_OF_LEVEL: Mapping[Level, str] = {
    "instance": "object_key",
    "series": "series_key",
    "study": "study_key",
    "patient": "patient_key",
    "file": "source_key",
}
"""Column of an example in which a label's identifier is looked up."""

NEGATIVE = frozenset(
    {"0", "absent", "benign", "control", "false", "healthy", "negative", "no", "none", "normal"}
)
"""Names of the negative class; of two classes it comes first."""

LINES = pa.schema([("key", pa.string()), ("value", pa.string()), ("line", pa.int64())])
BATCH_LINES = 2**12
"""Lines that are in memory as Python's objects at a time; ten million would take some GB."""
COMPACT_LINES = 2**17
"""New lines, at least, before the repeated ones are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Labels by pseudonym, each with its first line in the CSV; no original identifier is kept.

    Arrow columns, as a table may have a line for each image of an archive. `conflicts` are the keys with two different
    labels, which count as not labelled.
    """

    level: Level
    keys: pa.Array
    values: pa.Array
    lines: pa.Array
    conflicts: pa.Array


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """Lines of the label table without effect: their image does not exist, or its label contradicts another line."""

    lines_without_image: tuple[int, ...] = ()
    lines_in_conflict: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedLabels:
    """Label of each example (null for none), reason for none ("no-label", "two-labels"), and lines without effect."""

    labels: pa.ChunkedArray
    faults: pa.ChunkedArray
    report: LabelReport


def read_labels(path: Path, pseudonyms: Pseudonyms, column: str | None = None) -> LabelTable:
    """Read a CSV with one identifier column and one label column, both recognised by name."""
    with open_csv(path) as file:
        reader = csv.reader(file)
        names = next(reader, [])
        key_column, level, label_column = _columns(path, names, column)
        # Of columns with the same name the last counts.
        key, label = (len(names) - 1 - names[::-1].index(name) for name in (key_column, label_column))
        # A line is counted as an editor counts it, blank lines and line breaks in quotes included.
        rows = (
            (reader.line_num, row[key] if key < len(row) else "", row[label])
            for row in reader
            if label < len(row)
        )
        return build_label_table(level, rows, pseudonyms)


def label_columns(path: Path, column: str | None = None) -> tuple[str, Level, str]:
    """Return the columns of a CSV that `read_labels` reads: of identifiers, with their level, and of labels."""
    with open_csv(path) as file:
        return _columns(path, next(csv.reader(file), []), column)


def build_label_table(
    level: Level, rows: Iterable[tuple[int, str, str]], pseudonyms: Pseudonyms
) -> LabelTable:
    """Return the table of (line, identifier, label) rows; an identifier with two different labels has none."""
    batches, new = [pa.record_batch([[], [], []], schema=LINES)], 0
    for batch in _keyed(level, rows, pseudonyms):
        batches.append(batch)
        new += batch.num_rows
        if new > max(batches[0].num_rows, COMPACT_LINES):
            # A table of patients may have a line for each of their images.
            lines = pa.concat_batches(batches)
            batches, new = [lines.take(np.sort(np.concatenate(_lines_by_key(lines))))], 0
    lines = pa.concat_batches(batches)
    first, conflicting = _lines_by_key(lines)
    kept = lines if len(first) == len(lines) else lines.take(first)
    return LabelTable(
        level=level,
        keys=kept["key"],
        values=kept["value"],
        lines=kept["line"],
        conflicts=lines["key"].take(conflicting),
    )


def _keyed(
    level: Level, rows: Iterable[tuple[int, str, str]], pseudonyms: Pseudonyms
) -> Iterator[pa.RecordBatch]:
    labelled = ((line, name, value) for line, name, label in rows if (value := label.strip()))
    while some := list(islice(labelled, BATCH_LINES)):
        names = [plain_file_name(name) if level == "file" else name for _, name, _ in some]
        columns = (
            pseudonyms.keys(level, names),
            [value for _, _, value in some],
            [line for line, _, _ in some],
        )
        yield pa.record_batch(list(map(pa.array, columns, LINES.types)), schema=LINES)


def _lines_by_key(lines: pa.RecordBatch) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return positions of the first line of each key, in the order of lines, and of its first line with another label.

    The latter are in the order of keys.
    """
    # The sort is stable and so leaves lines with one key in their order. Hashes would take three times the memory.
    order = pc.sort_indices(lines["key"]).to_numpy()
    ordered = lines["key"].take(order)
    new = np.ones(len(order), bool)
    new[1:] = pc.not_equal(ordered[1:], ordered[:-1])
    first, repeated, key = order[new], order[~new], np.cumsum(new)[~new] - 1
    differs = np.asarray(pc.not_equal(lines["value"].take(repeated), lines["value"].take(first[key])), bool)
    conflicting = repeated[differs][np.unique(key[differs], return_index=True)[1]]
    return np.sort(first), conflicting


def join_labels(table: LabelTable | None, examples: pa.Table) -> JoinedLabels:
    """Return the labels of examples from a table, or from their source where there is none.

    `examples` have the columns of `imaging.dataset.tables.schemas.EXAMPLES`.
    """
    if table is None:
        labels = examples["source_label"]
        return JoinedLabels(
            labels=labels, faults=_faults(pc.is_null(labels), "no-label"), report=LabelReport()
        )
    keys = examples[KEY_OF_LEVEL[table.level]]
    at = pc.index_in(keys, value_set=table.keys)
    disputed = pc.is_in(keys, value_set=table.conflicts)
    faults = pc.coalesce(_faults(disputed, "two-labels"), _faults(pc.is_null(at), "no-label"))
    unused = np.ones(len(table.keys), np.bool_)
    unused[at.drop_null().to_numpy()] = False
    report = LabelReport(
        lines_without_image=tuple(table.lines.filter(pa.array(unused)).to_pylist()),
        lines_in_conflict=tuple(
            table.lines.take(pc.index_in(table.conflicts, value_set=table.keys)).to_pylist()
        ),
    )
    labels = pc.if_else(disputed, pa.scalar(None, pa.string()), table.values.take(at))
    return JoinedLabels(labels=labels, faults=faults, report=report)


def _faults(where: pa.ChunkedArray, fault: str) -> pa.ChunkedArray:
    return pc.if_else(where, fault, pa.scalar(None, pa.string()))


def order_classes(labels: Iterable[str], positive: str | None = None) -> tuple[str, ...]:
    """Return the classes in their order; of two, the second is the positive one.

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


def _columns(path: Path, names: list[str], column: str | None) -> tuple[str, Level, str]:
    key, level = _key_column(path, names)
    return key, level, _label_column(path, names, key, column)


def _key_column(path: Path, names: list[str]) -> tuple[str, Level]:
    levels = {name: _level(name) for name in names}
    # A column `file` wins: PatientID beside it names the patient of a picture, and does not identify the picture.
    for name, level in sorted(levels.items(), key=lambda item: item[1] != "file"):
        if level is not None:
            return name, level
    # The first line is not quoted: where the names are missing, it has a patient's identifier.
    raise UserFault(
        f"{path.name} has {len(names)} columns and none is named as an identifier: its first line must name one "
        "SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID, PatientID or file"
    )


def _level(name: str) -> Level | None:
    return LEVEL_OF_COLUMN.get(plain_column(name))


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
