"""Label table of a person: its columns are recognised by name, and its lines become labels by pseudonym."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.annotations.class_order import order_classes
from imaging.annotations.label_spelling import MOST_CLASSES, check_spellings
from imaging.errors import UserFault
from imaging.pseudonyms import Level, Pseudonyms
from imaging.sources.label_file import (
    DELIMITERS,
    MISSING,
    LabelFile,
    missing_values,
    open_label_file,
    plain_file_name,
)

LINES = pa.schema([("key", pa.string()), ("value", pa.string()), ("line", pa.int64())])
BATCH_LINES = 2**12
"""Lines that are in memory as Python's objects at a time; ten million would take some GB."""
COMPACT_LINES = 2**17
"""New lines, at least, before the repeated ones are dropped."""
PARENT_DIGITS = 8
"""Digits of a coarser identifier's pseudonym that are kept beside each line, to be compared with those of one image:
a wrong one passes with a chance of 1 in 4 billion, and ten million whole ones would take a GB."""
NO_PARENT = " " * PARENT_DIGITS
NO_IDENTIFIER = missing_values()

Row = tuple[int, str, str, *tuple[str, ...]]
"""Line, identifier, label, and the coarser identifiers of the line."""
LABEL = itemgetter(2)


@dataclass(slots=True)
class UnevenLines:
    """Count of the lines with more or fewer fields than the header, and the first of them."""

    count: int = 0
    first: int = 0

    def add(self, line: int) -> None:
        """Count one line."""
        self.count += 1
        self.first = self.first or line


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Labels by pseudonym, each with its first line in the CSV; no original identifier is kept.

    Arrow columns, as a table may have a line for each image of an archive. A key is the pseudonym of an identifier of
    `level`; behind it come PARENT_DIGITS of those of the line's identifiers of the `parents`, which are coarser.
    `conflicts` are the keys with two different labels, which count as not labelled. `counts` are the lines of each
    label, and `missing` those of each word that stands for none. `opposed` is the line with the other label by the
    first line of each conflict. `uneven` are lines with more or fewer fields than the header: how many, and the first.
    """

    level: Level
    keys: pa.Array
    values: pa.Array
    lines: pa.Array
    conflicts: pa.Array
    parents: tuple[Level, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    opposed: Mapping[int, int] = field(default_factory=dict)
    uneven: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """Positions of the columns that are read: of the finest identifiers, of coarser ones, and of the labels."""

    level: Level
    key: int
    label: int
    parents: Mapping[Level, int]


def read_labels(
    path: Path,
    pseudonyms: Pseudonyms,
    column: str | None = None,
    *,
    missing: Sequence[str] = MISSING,
    volumes: bool = False,
) -> LabelTable:
    """Read a table with identifier columns and one label column, all recognised by name.

    Of several identifiers the finest decides, and the others are kept to be compared with the image's own. `missing`
    are labels that stand for none, whatever their case. Raises UserFault where one class is spelled in two ways.
    """
    with open_label_file(path) as file:
        at = _columns(file, column, volumes=volumes)
        parents, uneven = tuple(at.parents), UnevenLines()
        rows = table_rows(file.reader(), len(file.columns), at, uneven, itemgetter(at.label))
        table = build_label_table(at.level, rows, pseudonyms, parents=parents, missing=missing)
    check_spellings(path, table.counts)
    return replace(table, uneven=(uneven.count, uneven.first))


def label_columns(path: Path, column: str | None = None) -> str:
    """Return the column of labels that `read_labels` reads, after a look at the first line."""
    with open_label_file(path) as file:
        return file.columns[_columns(file, column).label]


def check_positive(
    path: Path, positive: str, column: str | None = None, *, missing: Sequence[str] = MISSING
) -> None:
    """Raise UserFault where no line has the label that is looked for; reading ends at the first line that has it."""
    none, classes = missing_values(missing), set[str]()
    with open_label_file(path) as file:
        label = _columns(file, column).label
        for row in file.reader():
            value = row[label].strip() if label < len(row) else ""
            if value.casefold() in none or len(value.splitlines()) > 1 or len(classes) > MOST_CLASSES:
                continue
            if value == positive:
                return
            classes.add(value)
    order_classes(classes, positive)


def build_label_table(
    level: Level,
    rows: Iterable[Row],
    pseudonyms: Pseudonyms,
    *,
    parents: tuple[Level, ...] = (),
    missing: Sequence[str] = MISSING,
) -> LabelTable:
    """Return the table of rows; an identifier with two different labels has none."""
    counts, absent = Counter[str](), Counter[str]()
    batches, new = [pa.record_batch([[], [], []], schema=LINES)], 0
    for numbers, names, values, others in _labelled(rows, missing, counts, absent):
        keys = _keys(level, names, parents, others, pseudonyms)
        batch = pa.record_batch(list(map(pa.array, (keys, values, numbers), LINES.types)), schema=LINES)
        batches.append(batch)
        new += batch.num_rows
        if new > max(batches[0].num_rows, COMPACT_LINES):
            # A table of patients may have a line for each of their images.
            lines = pa.concat_batches(batches)
            batches, new = [lines.take(np.sort(np.concatenate(_lines_by_key(lines))))], 0
    lines = pa.concat_batches(batches)
    first, conflicting = _lines_by_key(lines)
    kept = lines if len(first) == len(lines) else lines.take(first)
    others = lines.take(conflicting)
    opposed = kept["line"].take(pc.index_in(others["key"], value_set=kept["key"]))
    return LabelTable(
        level=level,
        keys=kept["key"],
        values=kept["value"],
        lines=kept["line"],
        conflicts=others["key"],
        parents=parents,
        counts=counts,
        missing=absent,
        opposed=dict(zip(opposed.to_pylist(), others["line"].to_pylist(), strict=True)),
    )


def table_rows(
    reader: Any, columns: int, at: LabelColumns, uneven: UnevenLines, value_of: Callable[[list[str]], str]
) -> Iterator[Row]:
    """Return the rows of the lines that reach the label, with what `value_of` makes of each.

    `columns` is how many the first line names. A cell behind the end of a line is empty.
    """
    key, label, others = at.key, at.label, tuple(at.parents.values())
    padding = [""] * columns
    for row in reader:
        if len(row) != columns:
            if row:  # blank lines are none
                uneven.add(reader.line_num)
            if len(row) <= label:
                continue
            row.extend(padding[len(row) :])
        if others:
            yield (reader.line_num, row[key], value_of(row), *(row[one] for one in others))
        else:
            yield reader.line_num, row[key], value_of(row)


def _labelled(
    rows: Iterable[Row], missing: Sequence[str], counts: Counter[str], absent: Counter[str]
) -> Iterator[tuple[Sequence[int], Sequence[str], Sequence[str], Sequence[Sequence[str]]]]:
    """Yield lines, identifiers, labels and coarser identifiers of the labelled rows, a batch at a time; count them."""
    none, coming = missing_values(missing), iter(rows)
    while some := list(islice(coming, BATCH_LINES)):
        # Looked at once a batch: a table has few labels.
        written = Counter(map(LABEL, some))
        labels = {label: label.strip() for label in written}
        if any(len(label.splitlines()) > 1 for label in labels.values()):
            # Two stray quotes make one label of all that is between them, identifiers of other lines too.
            raise UserFault(
                f"a label between the lines {some[0][0]} and {some[-1][0]} of the table has a line break: a quote is "
                "missing or too much there"
            )
        empty = {label for label, value in labels.items() if value.casefold() in none}
        for label, lines in written.items():
            if label in empty:
                absent[labels[label]] += lines
            elif len(counts) <= MOST_CLASSES:
                counts[labels[label]] += lines
        if empty:
            some = [row for row in some if row[2] not in empty]
        if some:
            numbers, names, values, *others = zip(*some, strict=True)
            if any(label != value for label, value in labels.items()):
                values = tuple(labels[label] for label in values)
            yield numbers, names, values, others


def _keys(
    level: Level,
    names: Sequence[str],
    parents: tuple[Level, ...],
    others: Sequence[Sequence[str]],
    pseudonyms: Pseudonyms,
) -> list[str]:
    plain = [plain_file_name(name) for name in names] if level == "file" else names
    keys = pseudonyms.keys(level, plain)
    if not parents:
        return keys
    columns = (_parent_keys(parent, some, pseudonyms) for parent, some in zip(parents, others, strict=True))
    return ["".join(parts) for parts in zip(keys, *columns, strict=True)]


def _parent_keys(level: Level, names: Sequence[str], pseudonyms: Pseudonyms) -> list[str]:
    """Return the first digits of the pseudonyms of coarser identifiers, each of which many lines share."""
    known = {name for name in names if name.strip().casefold() not in NO_IDENTIFIER}
    digits = {
        name: key[:PARENT_DIGITS] for name, key in zip(known, pseudonyms.keys(level, known), strict=True)
    }
    return [digits.get(name, NO_PARENT) for name in names]


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


def _columns(file: LabelFile, wanted: str | None, *, volumes: bool = False) -> LabelColumns:
    at = identifier_columns(file, volumes=volumes)
    return replace(at, label=label_column(file, wanted))


def identifier_columns(file: LabelFile, *, volumes: bool = False) -> LabelColumns:
    """Return the columns of identifiers, the finest of which stands for the label; raise UserFault for none."""
    identifiers = dict(file.identifiers)
    if volumes and len(identifiers) > 1:
        # A volume is made of many instances: what names it is its series.
        identifiers.pop("instance", None)
    if not identifiers:
        # The first line is not quoted: where the names are missing, it has a patient's identifier.
        raise UserFault(
            f"{file.name} has {_columns_in(file)} named as an identifier, whichever of "
            f"{', '.join(DELIMITERS.values())} is between them: its first line must name one SOPInstanceUID, "
            "SeriesInstanceUID, StudyInstanceUID, PatientID or file"
        )
    level, key = next(iter(identifiers.items()))
    # Beside `file` the others name the patient of a picture, which has no identifiers of its own.
    parents = {} if level == "file" else {one: at for one, at in identifiers.items() if one != level}
    return LabelColumns(level=level, key=key, label=key, parents=parents)


def _columns_in(file: LabelFile) -> str:
    count = len(file.columns)
    return f"{count} columns and none is" if count > 1 else "1 column and it is not"


def label_column(file: LabelFile, wanted: str | None) -> int:
    """Return the column that is wanted, or the one called label, or the only one; raise UserFault for another count."""
    names, identifiers = file.columns, file.identifiers.values()
    others = [at for at in range(len(names)) if at not in identifiers]
    if wanted is None:
        chosen = [at for at in others if names[at].strip().lower() == "label"] or others
    else:
        chosen = [at for at, name in enumerate(names) if name == wanted]
        if {*chosen} & {*identifiers}:
            raise UserFault(
                f"{wanted!r} of {file.name} is a column of identifiers, not of labels: give --label-column another one"
            )
    if len({names[at].strip().lower() for at in chosen}) == 1 < len(chosen):
        same = [names[at] for at in chosen]
        raise UserFault(
            f"{file.name} has {len(same)} columns of one name, {same}: keep or rename one of them"
        )
    if len(chosen) == 1:
        return chosen[0]
    if wanted is None:
        raise UserFault(
            f"{file.name} has the columns {names} and none is 'label': name one with --label-column"
        )
    raise UserFault(f"{file.name} has the columns {names} and no {wanted!r}: give --label-column one of them")
