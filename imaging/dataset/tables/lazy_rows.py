"""Rows that are read when they are asked for: a row filter and added columns are in memory, the rest stays in its file.

A dataset may have ten million rows, and of most of them a night needs a few columns at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from imaging.dataset.tables.table_files import READERS, count_part, read_part
from imaging.store.protocol import Damaged, Store

ReadColumns = Callable[[Sequence[str]], pa.Table]
"""Returns some columns of all rows of a table."""


@dataclass(frozen=True, slots=True)
class Block:
    """One table of `rows` rows, in memory or in a file; of them those count that `mask` selects, or all.

    Columns that were `added` have values for the selected rows alone, and replace columns of the same name.
    """

    read: ReadColumns
    rows: int
    mask: pa.BooleanArray | None = None
    added: pa.Table = field(default_factory=lambda: pa.table({}))

    @property
    def num_rows(self) -> int:
        """How many rows are selected."""
        return self.rows if self.mask is None else int(self.mask.true_count)

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns of the selected rows; raise Missing or Damaged."""
        chosen = {name: self.added[name] for name in columns if name in self.added.column_names}
        stored = [name for name in columns if name not in chosen]
        if stored:
            chosen |= dict(zip(stored, self._stored(stored).columns, strict=True))
        return pa.table({name: chosen[name] for name in columns})

    def filter(self, mask: pa.BooleanArray) -> "Block":
        """Return the rows that a mask selects of those that are selected now."""
        if mask.true_count == len(mask):
            return self
        added = self.added.filter(mask) if self.added.num_columns else self.added
        if self.mask is None:
            return replace(self, mask=mask, added=added)
        both = self.mask.to_numpy(zero_copy_only=False).copy()
        both[both] = mask.to_numpy(zero_copy_only=False)
        return replace(self, mask=pa.array(both), added=added)

    def with_columns(self, columns: pa.Table) -> "Block":
        """Return these rows with columns that are new or replace their own."""
        for name in self.added.column_names:
            if name not in columns.column_names:
                columns = columns.append_column(name, self.added[name])
        return replace(self, added=columns)

    def _stored(self, columns: Sequence[str]) -> pa.Table:
        table = self.read(columns)
        if table.num_rows != self.rows:
            raise Damaged(f"a table that had {self.rows} rows has {table.num_rows} now: run again")
        return table if self.mask is None else table.filter(self.mask)


class LazyRows:
    """Rows of several blocks, one behind the other; `schema` has all their columns.

    No sequence and no dataclass, since into those Prefect looks value by value whenever a task is called.
    """

    def __init__(self, schema: pa.Schema, blocks: Iterable[Block] = ()) -> None:
        self.schema = schema
        self.blocks = tuple(blocks)
        self.num_rows = sum(block.num_rows for block in self.blocks)

    @classmethod
    def of(cls, table: pa.Table) -> "LazyRows":
        """Return the rows of a table that is in memory."""
        return cls(table.schema, [Block(table.select, table.num_rows)])

    @classmethod
    def stored(cls, store: Store, names: Sequence[str], schema: pa.Schema) -> "LazyRows":
        """Return the rows of parts in a store; raise Missing or Damaged."""
        with ThreadPoolExecutor(READERS) as readers:
            counts = readers.map(partial(count_part, store), names)
            parts = zip(names, counts, strict=True)
            return cls(schema, [Block(partial(read_part, store, name, schema), rows) for name, rows in parts])

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns of all rows; raise Missing or Damaged."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        with ThreadPoolExecutor(READERS) as readers:
            tables = readers.map(lambda block: block.select(columns).cast(schema), self.blocks)
            return pa.concat_tables([schema.empty_table(), *tables])

    def filter(self, mask: pa.Array | pa.ChunkedArray) -> "LazyRows":
        """Return the rows that a mask selects."""
        whole = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
        kept = (block.filter(whole.slice(start, block.num_rows)) for start, block in self._with_starts())
        return LazyRows(self.schema, [block for block in kept if block.num_rows])

    def with_columns(self, columns: pa.Table) -> "LazyRows":
        """Return these rows with columns that are new or replace their own."""
        new = [field for field in columns.schema if field.name not in self.schema.names]
        blocks = (
            block.with_columns(columns.slice(start, block.num_rows)) for start, block in self._with_starts()
        )
        return LazyRows(pa.schema([*self.schema, *new]), blocks)

    def _with_starts(self) -> Iterator[tuple[int, Block]]:
        """Yield the number of the first row of each block, and the block."""
        start = 0
        for block in self.blocks:
            yield start, block
            start += block.num_rows

    def __add__(self, others: "LazyRows") -> "LazyRows":
        return LazyRows(self.schema, [*self.blocks, *others.blocks])
