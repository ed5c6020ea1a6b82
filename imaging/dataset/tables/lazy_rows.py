"""Owns rows that stay where they are: which of them are meant is known, and columns are read when they are asked for.

A dataset may have ten million rows, and of most of them a night needs a few columns at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from imaging.dataset.tables.table_files import READERS, count_part, read_part
from imaging.store.protocol import Damaged, Store

Read = Callable[[Sequence[str]], pa.Table]
"""Returns some columns of all rows of a table."""


@dataclass(frozen=True, slots=True)
class Block:
    """A table of so many `rows`, wherever it is. `which` tells those that are meant, where not all are.

    Columns `beside` them, of those that are meant, take the place of their own.
    """

    read: Read
    rows: int
    which: pa.BooleanArray | None = None
    beside: pa.Table = field(default_factory=lambda: pa.table({}))

    @property
    def num_rows(self) -> int:
        """How many rows are meant."""
        return self.rows if self.which is None else int(self.which.true_count)

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns of the rows that are meant; raise Missing or Damaged."""
        told = {name: self.beside[name] for name in columns if name in self.beside.column_names}
        own = [name for name in columns if name not in told]
        if own:
            told |= dict(zip(own, self._own(own).columns, strict=True))
        return pa.table({name: told[name] for name in columns})

    def only(self, mask: pa.BooleanArray) -> "Block":
        """Return the rows that a mask names of those that are meant."""
        if mask.true_count == len(mask):
            return self
        beside = self.beside.filter(mask) if self.beside.num_columns else self.beside
        if self.which is None:
            return replace(self, which=mask, beside=beside)
        which = self.which.to_numpy(zero_copy_only=False).copy()
        which[which] = mask.to_numpy(zero_copy_only=False)
        return replace(self, which=pa.array(which), beside=beside)

    def having(self, columns: pa.Table) -> "Block":
        """Return these rows with columns, new ones or others than they had."""
        for name in self.beside.column_names:
            if name not in columns.column_names:
                columns = columns.append_column(name, self.beside[name])
        return replace(self, beside=columns)

    def _own(self, columns: Sequence[str]) -> pa.Table:
        told = self.read(columns)
        if told.num_rows != self.rows:
            raise Damaged(f"a table that had {self.rows} rows has {told.num_rows} now: run again")
        return told if self.which is None else told.filter(self.which)


class Blocks:
    """Rows of several tables, one behind the other; `schema` has all their columns.

    No sequence and no dataclass, since into those Prefect looks value by value whenever a task is called.
    """

    def __init__(self, schema: pa.Schema, blocks: Iterable[Block] = ()) -> None:
        self.schema = schema
        self.blocks = tuple(blocks)
        self.num_rows = sum(block.num_rows for block in self.blocks)

    @classmethod
    def of(cls, table: pa.Table) -> "Blocks":
        """Return the rows of a table that is in memory."""
        return cls(table.schema, [Block(table.select, table.num_rows)])

    @classmethod
    def stored(cls, store: Store, names: Sequence[str], schema: pa.Schema) -> "Blocks":
        """Return the rows of parts in a store; raise Missing or Damaged."""
        with ThreadPoolExecutor(READERS) as readers:
            counts = readers.map(partial(count_part, store), names)
            told = zip(names, counts, strict=True)
            return cls(schema, [Block(partial(read_part, store, name, schema), rows) for name, rows in told])

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns of all rows; raise Missing or Damaged."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        with ThreadPoolExecutor(READERS) as readers:
            tables = readers.map(lambda block: block.select(columns).cast(schema), self.blocks)
            return pa.concat_tables([schema.empty_table(), *tables])

    def only(self, mask: pa.Array | pa.ChunkedArray) -> "Blocks":
        """Return the rows that a mask names."""
        whole = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
        kept = (block.only(whole.slice(start, block.num_rows)) for start, block in self.places())
        return Blocks(self.schema, [block for block in kept if block.num_rows])

    def having(self, columns: pa.Table) -> "Blocks":
        """Return these rows with columns, new ones or others than they had."""
        new = [field for field in columns.schema if field.name not in self.schema.names]
        told = (block.having(columns.slice(start, block.num_rows)) for start, block in self.places())
        return Blocks(pa.schema([*self.schema, *new]), told)

    def places(self) -> Iterator[tuple[int, Block]]:
        """Yield each block, and how many rows are before it."""
        start = 0
        for block in self.blocks:
            yield start, block
            start += block.num_rows

    def __add__(self, others: "Blocks") -> "Blocks":
        return Blocks(self.schema, [*self.blocks, *others.blocks])
