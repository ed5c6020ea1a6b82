"""Owns what stands in the end: conflicts, repetitions and lost studies decided, and tombstones for what went."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.manifest import concat, drop_studies, merge
from imaging.dataset.rows import EXAMPLES, REFUSALS, TABLES
from imaging.dataset.scan import ScanPlan


def settle(scan: ScanPlan, *, drop_equal_pixels: bool, drops_studies: bool) -> ScanPlan:
    """Return a plan of which no two examples are one instance or, where so asked, one image; it has been read."""
    disputed = _in_conflict(scan.superseded, scan.examples)
    standing = concat([scan.superseded.filter(disputed), scan.examples], EXAMPLES)
    refusals = [scan.refusals]
    if drops_studies:
        # Before equal pixels are dropped: what goes with its study must not take the place of what stays.
        standing, lost = drop_studies(standing, scan.refusals)
        refusals.append(lost)
    standing, repeats = merge(standing, drop_equal_pixels=drop_equal_pixels)
    gone = concat([scan.gone, scan.superseded], EXAMPLES)
    return replace(
        scan,
        examples=standing,
        refusals=concat([*refusals, repeats], REFUSALS),
        tombstones=_tombstones([scan.tombstones, gone], standing),
    )


def _in_conflict(superseded: pa.Table, standing: pa.Table) -> pa.ChunkedArray:
    """Tell of each example whose file was changed whether its instance has other pixels now: the first one stands.

    A series grows, and a picture is named by its file alone: those may change.
    """
    at = pc.index_in(superseded["instance_key"], value_set=standing["instance_key"])
    other = pc.fill_null(pc.not_equal(standing["pixel_blake3"].take(at), superseded["pixel_blake3"]), False)
    return pc.and_(other, pc.not_equal(superseded["object_key"], superseded["series_key"]))


def _tombstones(gone: list[pa.Table], standing: pa.Table) -> pa.Table:
    """Return one for each instance that does not stand in another file."""
    rows = concat(gone, TABLES["tombstones"])
    rows = rows.filter(pc.invert(pc.is_in(rows["instance_key"], value_set=standing["instance_key"])))
    return rows.group_by(rows.column_names).aggregate([])
