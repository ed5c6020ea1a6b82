"""Rows of the annotations table, made from arrays of findings and labels, and read back into them.

Findings are an array of int8 (n, findings): 1 is present, 0 absent, -1 unknown. What is unknown has no row, so that
nothing can take it for absent. Ten million images of fourteen findings are 140 million rows: they exist part by part.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.tables.schemas import ABSENT, CLASS, FINDING, PRESENT, TABLES

Findings = NDArray[np.int8]
SCHEMA = TABLES["annotations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationGroup:
    """Rows of annotations whose keys begin with one prefix, which are made when they are asked for.

    `keys` (n) are instance keys beside their `findings` (n, names); `others` are rows of other kinds, such as masks.
    """

    keys: pa.Array
    findings: Findings
    names: Sequence[str]
    others: pa.Table

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns of the rows."""
        rows = finding_rows(self.keys, self.findings, self.names)
        return pa.concat_tables([rows, self.others]).select(columns)


def annotation_groups(
    keys: pa.ChunkedArray, findings: Findings, names: Sequence[str], others: pa.Table, digits: int
) -> list[AnnotationGroup]:
    """Return the annotations in groups by the first digits of the key, in its order."""
    order = pc.sort_indices(keys)
    ordered, arranged = keys.take(order).combine_chunks(), findings[order.to_numpy()]
    others = others.take(pc.sort_indices(others["instance_key"]))
    spans, spans_of_others = (_spans(column, digits) for column in (ordered, others["instance_key"]))
    none = slice(0, 0)
    return [
        AnnotationGroup(
            keys=ordered[spans.get(prefix, none)],
            findings=arranged[spans.get(prefix, none)],
            names=names,
            others=others[spans_of_others.get(prefix, none)],
        )
        for prefix in sorted(spans.keys() | spans_of_others.keys())
    ]


def finding_rows(keys: pa.Array, findings: Findings, names: Sequence[str]) -> pa.Table:
    """Return a row for each finding that is known of an image.

    >>> finding_rows(pa.array(["k"]), np.array([[1, -1]], np.int8), ["mass", "oedema"])["target"].to_pylist()
    ['mass']
    """
    at, finding = np.nonzero(findings >= 0)
    values = {
        "instance_key": keys.take(pa.array(at)),
        "target": pa.array(names, pa.string()).take(pa.array(finding)),
        "kind": pa.repeat(FINDING, len(at)),
        "value": pa.array([ABSENT, PRESENT]).take(pa.array(findings[at, finding])),
    }
    return _rows(values, len(at))


def class_rows(examples: pa.Table) -> pa.Table:
    """Return the labels of examples as annotations: the column `label` is where they are stored, in every release."""
    labelled = examples.filter(pc.is_valid(examples["label"]))
    count = labelled.num_rows
    values = {
        "instance_key": labelled["instance_key"],
        "target": pa.repeat("label", count),
        "kind": pa.repeat(CLASS, count),
        "value": labelled["label"],
    }
    return _rows(values, count)


def finding_array(keys: pa.ChunkedArray, parts: Iterable[pa.Table], names: Sequence[str]) -> Findings:
    """Return the findings of images (n, names), in the order of their keys, from the parts of the table."""
    known, arrays = [pa.array([], pa.string())], [np.empty((0, len(names)), np.int8)]
    for part in parts:
        rows = part.filter(pc.equal(part["kind"], FINDING))
        coded = rows["instance_key"].combine_chunks().dictionary_encode()
        target = pc.index_in(rows["target"], value_set=pa.array(names, pa.string())).fill_null(-1).to_numpy()
        array = np.full((len(coded.dictionary), len(names)), -1, np.int8)
        of_names = target >= 0
        array[coded.indices.to_numpy()[of_names], target[of_names]] = np.asarray(
            pc.equal(rows["value"], PRESENT), np.int8
        )[of_names]
        known.append(coded.dictionary)
        arrays.append(array)
    at = pc.index_in(keys, value_set=pa.concat_arrays(known)).fill_null(-1).to_numpy()
    # The last row is that of images of which nothing is known.
    findings: Findings = np.concatenate([*arrays, np.full((1, len(names)), -1, np.int8)])[at]
    return findings


def _spans(ordered: pa.Array | pa.ChunkedArray, digits: int) -> dict[str, slice]:
    """Return where the keys with each prefix stand in their order."""
    counted = pc.utf8_slice_codeunits(ordered, 0, digits).value_counts()
    ends = np.cumsum(counted.field("counts").to_numpy()).tolist()
    return dict(zip(counted.field("values").to_pylist(), map(slice, [0, *ends], ends), strict=False))


def _rows(values: dict[str, pa.Array | pa.ChunkedArray], count: int) -> pa.Table:
    empty = {field.name: pa.nulls(count, field.type) for field in SCHEMA if field.name not in values}
    return pa.table({name: (values | empty)[name] for name in SCHEMA.names}).cast(SCHEMA)
