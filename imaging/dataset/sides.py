"""Owns which side each patient is on: who is known stays, whose images are alike stand together."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.fingerprint import from_column
from imaging.dataset.leakage import linked
from imaging.dataset.split import assign


def draw_sides(
    examples: pa.Table, previous: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, str]:
    """Return the split of every patient who ever had one: whose images or labels went may come back."""
    drawn = examples.filter(pc.and_(pc.is_valid(examples["label"]), pc.is_null(examples["source_split"])))
    new = pc.invert(pc.is_in(drawn["patient_key"], value_set=pa.array(list(previous), pa.string())))
    together = _linked(drawn, new) if pc.any(new).as_py() else {}
    return {**previous, **assign(_strata(drawn), previous, shares, together)}


def _strata(examples: pa.Table) -> dict[str, Sequence[str]]:
    """Return the strata of each patient: its labels, and its labels and sites."""
    columns = ["patient_key", "label", "site_key"]
    told = (
        examples.select(columns)
        .group_by("patient_key")
        .aggregate([("label", "distinct"), ("site_key", "distinct")])
    )
    found: dict[str, Sequence[str]] = {}
    for patient, labels, sites in zip(*(told[name].to_pylist() for name in told.column_names), strict=True):
        coarse = "|".join(sorted(labels))
        found[patient] = (coarse, "@".join([coarse, "|".join(sorted(sites))]))
    return found


def _linked(examples: pa.Table, new: pa.ChunkedArray) -> Mapping[str, str]:
    """Return the group of each patient who shares images with a new one."""
    return linked(from_column(examples["fingerprint"]), examples["patient_key"], new.to_numpy())
