"""Conflict resolution of an ingest: one example per instance, repetitions refused, tombstones for removed files."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.ingest.diff import IngestPlan
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.row_operations import concat, refuse_lost_studies, refuse_repeats
from imaging.dataset.tables.schemas import REFUSALS, TABLES


def resolve_conflicts(plan: IngestPlan, *, drop_equal_pixels: bool, drops_studies: bool) -> IngestPlan:
    """Return a plan whose files are all read, with no two examples of one instance or, where so asked, of one image."""
    disputed = plan.superseded.filter(_in_conflict(plan.superseded, plan.examples))
    examples = disputed + plan.examples
    ranks = np.concatenate([np.full(disputed.num_rows, -1), plan.ranks])
    refusals = [plan.refusals]
    if drops_studies:
        # Before equal pixels are dropped: what is lost with its study must not replace what stays.
        gone, lost = refuse_lost_studies(examples, plan.refusals)
        examples, ranks = examples.filter(pc.invert(gone)), ranks[~np.asarray(gone, np.bool_)]
        refusals.append(lost)
    examples, repeats = refuse_repeats(examples, ranks, drop_equal_pixels=drop_equal_pixels)
    return replace(
        plan,
        examples=examples,
        ranks=np.zeros(examples.num_rows, np.int64),
        refusals=concat([*refusals, repeats], REFUSALS),
        tombstones=_tombstones(plan, examples),
    )


def _in_conflict(superseded: LazyRows, examples: LazyRows) -> pa.ChunkedArray:
    """Return the mask of examples whose file was changed and whose instance now has other pixels: the first is kept.

    A series grows, and a picture is named by its file alone: those may change.
    """
    was = superseded.select(["instance_key", "pixel_blake3", "object_key", "series_key"])
    if not was.num_rows:
        return pa.chunked_array([], pa.bool_())
    now = examples.select(["instance_key", "pixel_blake3"])
    at = pc.index_in(was["instance_key"], value_set=now["instance_key"])
    other = pc.fill_null(pc.not_equal(now["pixel_blake3"].take(at), was["pixel_blake3"]), False)
    return pc.and_(other, pc.not_equal(was["object_key"], was["series_key"]))


def _tombstones(plan: IngestPlan, examples: LazyRows) -> pa.Table:
    """Return one for each removed instance that is in no other file."""
    schema = TABLES["tombstones"]
    gone = [plan.tombstones, plan.removed.select(schema.names), plan.superseded.select(schema.names)]
    rows = concat(gone, schema)
    if not rows.num_rows:
        return rows
    kept = examples.select(["instance_key"])["instance_key"]
    rows = rows.filter(pc.invert(pc.is_in(rows["instance_key"], value_set=kept)))
    return rows.group_by(rows.column_names).aggregate([])
