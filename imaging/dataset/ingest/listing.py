"""Listing of a source as columns, and its comparison with rows that were made from the source before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.tables.row_operations import filter_batches
from imaging.dataset.tables.schemas import SOURCE
from imaging.pseudonyms import Pseudonyms
from imaging.sources.protocol import SourceFile

LISTED = pa.schema([pa.field("name", pa.binary(), nullable=False), *SOURCE])
"""A file under its name, which need not be UTF-8, and under its keyed one."""
ATTRIBUTES = attrgetter("name", "size_bytes", "mtime_ns", "tag")
AT_ONCE = 2**12
"""Files that become one batch of columns."""


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

    def filter(self, mask: pa.ChunkedArray) -> "Listing":
        """Return the files that a mask selects."""
        return Listing(filter_batches(self.table, mask))

    def named(self, keys: pa.Array) -> dict[str, str]:
        """Return the names of files by their keyed ones; keys that are not listed are left out."""
        rows = self.table.filter(pc.is_in(self.table["source_key"], value_set=keys))
        return dict(zip(rows["source_key"].to_pylist(), map(_text, rows["name"].to_pylist()), strict=True))


def list_files(files: Iterable[SourceFile], pseudonyms: Pseudonyms) -> Listing:
    """Return the listing of files, each as it comes."""
    coming, batches = iter(files), []
    # Tuples and not the files: plain values are nothing that the garbage collector looks through again and again.
    while some := list(map(ATTRIBUTES, islice(coming, AT_ONCE))):
        names, *others = ([one[place] for one in some] for place in range(4))
        plain = [name.encode(errors="surrogateescape") for name in names]
        columns = (plain, pseudonyms.keys("file", names), *others)
        batches.append(pa.record_batch(list(map(pa.array, columns, LISTED.types)), schema=LISTED))
    return Listing(pa.Table.from_batches(batches, LISTED))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Masks of rows: whose file is as it was (`current`), was `changed`, and is no longer listed (`removed`)."""

    current: pa.ChunkedArray
    changed: pa.ChunkedArray
    removed: pa.ChunkedArray


def compare_with_listing(
    rows: pa.Table, listing: pa.Table, spec: str, before: pa.Table | None = None
) -> Comparison:
    """Compare rows with a listing: by size, modification time, ETag, and the spec that they were made by.

    `before` are the rows that were known when the files were listed: rows that came later are current, whatever the
    listing says. Rows of another spec are in none of the masks as long as their file is listed.
    """
    listed, same = _matches(rows, listing)
    of_spec = pc.equal(rows["spec"], spec)
    later = (
        pc.and_(of_spec, False) if before is None else pc.and_(of_spec, pc.invert(_matches(rows, before)[1]))
    )
    current = pc.or_(pc.and_(same, of_spec), later)
    changed = pc.and_(pc.and_(listed, of_spec), pc.invert(pc.or_(same, later)))
    return Comparison(current=current, changed=changed, removed=pc.invert(pc.or_(listed, later)))


def _matches(rows: pa.Table, others: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the mask of rows whose file is among the others, and of those whose file is there unchanged."""
    at = pc.index_in(rows["source_key"], value_set=others["source_key"])
    same = known = pc.is_valid(at)
    for field in SOURCE[1:]:
        same = pc.and_(same, pc.fill_null(pc.equal(rows[field.name], others[field.name].take(at)), False))
    return known, same


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
