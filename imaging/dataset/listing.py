"""Owns the listing of a source as a table, and what it says of rows that were made from it before."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.rows import SOURCE
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.sources.protocol import SourceFile

LISTED = pa.schema(SOURCE)


@dataclass(frozen=True, slots=True)
class Held:
    """Of each row whether it stands, whether its file was changed, and whether its file is gone."""

    stands: pa.ChunkedArray
    changed: pa.ChunkedArray
    gone: pa.ChunkedArray


def list_files(files: Sequence[SourceFile], pseudonyms: Pseudonyms) -> pa.Table:
    """Return files under their keyed names."""
    columns = (
        [pseudonyms.key("file", file.name) for file in files],
        [file.size_bytes for file in files],
        [file.mtime_ns for file in files],
        [file.tag for file in files],
    )
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SOURCE, strict=True)], LISTED
    )


def hold(rows: pa.Table, listing: pa.Table, spec: str, before: pa.Table | None = None) -> Held:
    """Hold rows against a listing: by size, modification time, ETag, and the spec that they were made by.

    `before` are the rows that were known when the files were listed: newer ones stand whatever the listing says.
    """
    listed, same = _alike(rows, listing)
    right = pc.equal(rows["spec"], spec)
    later = pc.and_(right, False) if before is None else pc.and_(right, pc.invert(_alike(rows, before)[1]))
    stands = pc.or_(pc.and_(same, right), later)
    changed = pc.and_(pc.and_(listed, right), pc.invert(pc.or_(same, later)))
    gone = pc.invert(pc.or_(listed, later))
    return Held(stands=stands, changed=changed, gone=gone)


def _alike(rows: pa.Table, others: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Tell of each row whether the others know its file, and whether they know it as it is."""
    at = pc.index_in(rows["source_key"], value_set=others["source_key"])
    alike = known = pc.is_valid(at)
    for name in LISTED.names[1:]:
        alike = pc.and_(alike, pc.fill_null(pc.equal(rows[name], others[name].take(at)), False))
    return known, alike
