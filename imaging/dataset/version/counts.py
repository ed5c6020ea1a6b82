"""Owns how much a version holds: examples, patients, labels by split, and what was refused for which reason."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

Labelled = dict[str, dict[str, dict[str, int]]]
"""By split and class, how many `examples` and `patients`."""
COUNTED = ("patient_key", "split", "label")
"""Columns of examples that `count_rows` needs; of refusals it is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many examples of how many patients, with a label or without; refused files by reason."""

    examples: int
    patients: int
    labelled: Labelled
    refusals: Mapping[str, int]


def count_rows(examples: pa.Table, refusals: pa.Table) -> Counts:
    """Count the rows of a version."""
    return Counts(
        examples=examples.num_rows,
        patients=pc.count_distinct(examples["patient_key"]).as_py(),
        labelled=_labelled(examples),
        refusals={item["values"]: item["counts"] for item in refusals["reason"].value_counts().to_pylist()},
    )


def _labelled(examples: pa.Table) -> Labelled:
    told = examples.select(COUNTED)
    told = told.filter(pc.and_(pc.is_valid(told["split"]), pc.is_valid(told["label"])))
    counted = told.group_by(["split", "label"]).aggregate(
        [("patient_key", "count"), ("patient_key", "count_distinct")]
    )
    out: Labelled = {}
    for row in counted.sort_by([("split", "ascending"), ("label", "ascending")]).to_pylist():
        numbers = {"examples": row["patient_key_count"], "patients": row["patient_key_count_distinct"]}
        out.setdefault(row["split"], {})[row["label"]] = numbers
    return out
