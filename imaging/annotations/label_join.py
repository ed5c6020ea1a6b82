"""Join of a label table with examples: the label of each image, and the lines that have no effect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.annotations.label_table import NO_PARENT, PARENT_DIGITS, LabelTable
from imaging.pseudonyms import DIGITS, Level

KEY_OF_LEVEL: dict[Level, str] = {
    "instance": "object_key",
    "series": "series_key",
    "study": "study_key",
    "patient": "patient_key",
    "file": "source_key",
}
"""Column of an example in which a label's identifier is looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """Lines of the label table without effect: their image does not exist, or its label contradicts another line."""

    lines_without_image: tuple[int, ...] = ()
    lines_in_conflict: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedLabels:
    """Label of each example (null for none), reason for none ("no-label", "two-labels"), and lines without effect.

    `lines_of_others` name an image and a patient, study or series that is not the image's own.
    """

    labels: pa.ChunkedArray
    faults: pa.ChunkedArray
    report: LabelReport
    lines_of_others: tuple[int, ...] = ()


def joined_columns(table: LabelTable | None) -> list[str]:
    """Return the columns of examples that `join_labels` needs."""
    return [KEY_OF_LEVEL[level] for level in (table.level, *table.parents)] if table else ["source_label"]


def join_labels(table: LabelTable | None, examples: pa.Table) -> JoinedLabels:
    """Return the labels of examples from a table, or from their source where there is none.

    `examples` have the columns of `imaging.dataset.tables.schemas.EXAMPLES`.
    """
    if table is None:
        labels = examples["source_label"]
        return JoinedLabels(
            labels=labels, faults=_faults(pc.is_null(labels), "no-label"), report=LabelReport()
        )
    labels = pa.chunked_array([pa.nulls(examples.num_rows, pa.string())])
    disputed, unused = np.zeros(examples.num_rows, np.bool_), np.ones(len(table.keys), np.bool_)
    in_conflict = [table.lines.take(pc.index_in(table.conflicts, value_set=table.keys)).to_pylist()]
    for empty in _empty_parents(table):
        keys = _example_keys(table, examples, empty)
        at = pc.index_in(keys, value_set=table.keys)
        unused[at.drop_null().to_numpy()] = False
        new = table.values.take(at)
        disputed |= np.asarray(pc.is_in(keys, value_set=table.conflicts), np.bool_)
        if table.parents:
            # Lines of one image of which one leaves an identifier out are two keys, and may differ too.
            other = np.asarray(pc.fill_null(pc.not_equal(new, labels), False), np.bool_)
            in_conflict.append(table.lines.take(pc.unique(at.filter(pa.array(other)))).to_pylist())
            disputed |= other
        labels = pc.coalesce(labels, new)
    without_label = pc.is_null(labels)
    labels = pc.if_else(pa.chunked_array([disputed]), pa.scalar(None, pa.string()), labels)
    of_others = _of_others(table, examples, unused)
    return JoinedLabels(
        labels=labels,
        faults=pc.coalesce(
            _faults(pa.chunked_array([disputed]), "two-labels"), _faults(without_label, "no-label")
        ),
        report=LabelReport(
            lines_without_image=_lines(table, unused & ~of_others),
            lines_in_conflict=tuple(line for lines in in_conflict for line in lines),
        ),
        lines_of_others=_lines(table, of_others),
    )


def line_of(table: LabelTable, example: pa.Table) -> int:
    """Return the line of the table that names an example, a table of one row; 0 where none does."""
    for empty in _empty_parents(table):
        at = pc.index_in(_example_keys(table, example, empty), value_set=table.keys)[0].as_py()
        if at is not None:
            return int(table.lines[at].as_py())
    return 0


def _empty_parents(table: LabelTable) -> list[Sequence[bool]]:
    """Return which of the parents are empty together in some line: mostly none."""
    if not table.parents:
        return [()]
    empty = np.stack([np.asarray(pc.equal(column, NO_PARENT), np.bool_) for column in _parents(table)])
    return [tuple(column) for column in np.unique(empty, axis=1).T.tolist()]


def _parents(table: LabelTable) -> list[pa.Array]:
    starts = range(DIGITS, DIGITS + PARENT_DIGITS * len(table.parents), PARENT_DIGITS)
    return [pc.utf8_slice_codeunits(table.keys, start, start + PARENT_DIGITS) for start in starts]


def _example_keys(table: LabelTable, examples: pa.Table, empty: Sequence[bool]) -> pa.ChunkedArray:
    """Return the keys that lines of the examples would have, of which these parents are empty."""
    keys = examples[KEY_OF_LEVEL[table.level]]
    parents = [
        pa.scalar(NO_PARENT)
        if left_out
        else pc.utf8_slice_codeunits(examples[KEY_OF_LEVEL[level]], 0, PARENT_DIGITS)
        for level, left_out in zip(table.parents, empty, strict=True)
    ]
    return pc.binary_join_element_wise(keys, *parents, "") if parents else keys


def _of_others(table: LabelTable, examples: pa.Table, unused: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of unused lines whose image is there: another identifier of the line is not the image's own."""
    if not table.parents:
        return np.zeros_like(unused)
    named = pc.is_in(
        pc.utf8_slice_codeunits(table.keys, 0, DIGITS), value_set=examples[KEY_OF_LEVEL[table.level]]
    )
    return unused & np.asarray(named, np.bool_)


def _lines(table: LabelTable, where: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(table.lines.filter(pa.array(where)).to_pylist())


def _faults(where: pa.ChunkedArray, fault: str) -> pa.ChunkedArray:
    return pc.if_else(where, fault, pa.scalar(None, pa.string()))
