"""Owns the listing of a source as columns, and what it says of rows that were made from it before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.tables.row_operations import those
from imaging.dataset.tables.schemas import SOURCE
from imaging.pseudonyms import Pseudonyms
from imaging.sources.protocol import SourceFile

LISTED = pa.schema([pa.field("name", pa.binary(), nullable=False), *SOURCE])
"""A file under its name, which need not be UTF-8, and under its keyed one."""
TOLD = attrgetter("name", "size_bytes", "mtime_ns", "tag")
AT_ONCE = 2**12


class Listing:
    """Listed files, a table `LISTED`: ten million are too many for an object each.

    No sequence and no dataclass, since into those Prefect looks value by value whenever a task is called.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[SourceFile]:
        for batch in self.table.drop_columns("source_key").to_batches(max_chunksize=AT_ONCE):
            for name, size, mtime_ns, tag in zip(*(column.to_pylist() for column in batch), strict=True):
                yield SourceFile(name=_text(name), size_bytes=size, mtime_ns=mtime_ns, tag=tag)

    def __getitem__(self, some: slice) -> "Listing":
        return Listing(self.table[some])

    def only(self, these: pa.ChunkedArray) -> "Listing":
        """Return the files that a mask names."""
        return Listing(those(self.table, these))

    def named(self, keys: pa.Array) -> dict[str, str]:
        """Return the names of files by their keyed ones, of those that are listed."""
        told = self.table.filter(pc.is_in(self.table["source_key"], value_set=keys))
        return dict(zip(told["source_key"].to_pylist(), map(_text, told["name"].to_pylist()), strict=True))


def list_files(files: Iterable[SourceFile], pseudonyms: Pseudonyms) -> Listing:
    """Take down files as they come."""
    coming, batches = iter(files), []
    # Tuples and not the files: plain values are nothing that the garbage collector looks through again and again.
    while some := list(map(TOLD, islice(coming, AT_ONCE))):
        names, *told = ([one[place] for one in some] for place in range(4))
        plain = [name.encode(errors="surrogateescape") for name in names]
        columns = (plain, pseudonyms.keys("file", names), *told)
        batches.append(pa.record_batch(list(map(pa.array, columns, LISTED.types)), schema=LISTED))
    return Listing(pa.Table.from_batches(batches, LISTED))


@dataclass(frozen=True, slots=True)
class Held:
    """Of each row whether it stands, whether its file was changed, and whether its file is gone."""

    stands: pa.ChunkedArray
    changed: pa.ChunkedArray
    gone: pa.ChunkedArray


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
    for field in SOURCE[1:]:
        alike = pc.and_(alike, pc.fill_null(pc.equal(rows[field.name], others[field.name].take(at)), False))
    return known, alike


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
