"""Owns what stands in the end: conflicts, repetitions and lost studies decided, and tombstones for what went."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.ingest.diff import ScanPlan
from imaging.dataset.tables.lazy_rows import Blocks
from imaging.dataset.tables.row_operations import concat, merge, studies_lost
from imaging.dataset.tables.schemas import REFUSALS, TABLES


def settle(scan: ScanPlan, *, drop_equal_pixels: bool, drops_studies: bool) -> ScanPlan:
    """Return a plan of which no two examples are one instance or, where so asked, one image; it has been read."""
    disputed = scan.superseded.only(_in_conflict(scan.superseded, scan.examples))
    standing = disputed + scan.examples
    turns = np.concatenate([np.full(disputed.num_rows, -1), scan.turns])
    refusals = [scan.refusals]
    if drops_studies:
        # Before equal pixels are dropped: what goes with its study must not take the place of what stays.
        gone, lost = studies_lost(standing, scan.refusals)
        standing, turns = standing.only(pc.invert(gone)), turns[~np.asarray(gone, np.bool_)]
        refusals.append(lost)
    standing, repeats = merge(standing, turns, drop_equal_pixels=drop_equal_pixels)
    return replace(
        scan,
        examples=standing,
        turns=np.zeros(standing.num_rows, np.int64),
        refusals=concat([*refusals, repeats], REFUSALS),
        tombstones=_tombstones(scan, standing),
    )


def _in_conflict(superseded: Blocks, standing: Blocks) -> pa.ChunkedArray:
    """Tell of each example whose file was changed whether its instance has other pixels now: the first one stands.

    A series grows, and a picture is named by its file alone: those may change.
    """
    was = superseded.select(["instance_key", "pixel_blake3", "object_key", "series_key"])
    if not was.num_rows:
        return pa.chunked_array([], pa.bool_())
    now = standing.select(["instance_key", "pixel_blake3"])
    at = pc.index_in(was["instance_key"], value_set=now["instance_key"])
    other = pc.fill_null(pc.not_equal(now["pixel_blake3"].take(at), was["pixel_blake3"]), False)
    return pc.and_(other, pc.not_equal(was["object_key"], was["series_key"]))


def _tombstones(scan: ScanPlan, standing: Blocks) -> pa.Table:
    """Return one for each instance that went and does not stand in another file."""
    schema = TABLES["tombstones"]
    gone = [scan.tombstones, scan.gone.select(schema.names), scan.superseded.select(schema.names)]
    rows = concat(gone, schema)
    if not rows.num_rows:
        return rows
    stands = standing.select(["instance_key"])["instance_key"]
    rows = rows.filter(pc.invert(pc.is_in(rows["instance_key"], value_set=stands)))
    return rows.group_by(rows.column_names).aggregate([])
