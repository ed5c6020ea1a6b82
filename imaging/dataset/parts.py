"""Owns tables on their way into the store and out of it: parts of bounded size, named by their content."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from imaging.store.digest import bytes_digest, digest_name
from imaging.store.protocol import Damaged, Store

PART_ROWS = 65_536
"""Rows of a part at most, in the mean: parts are cut by the first digits of the key, so that most stay as they are."""
READERS, WRITERS = 4, 2
DIGEST_ROWS = 8192


@dataclass(frozen=True)
class Ordered:
    """A table in the order of a key: rows are gathered when they are asked for, as a sorted copy is as large again."""

    table: pa.Table
    order: pa.Array
    keys: pa.ChunkedArray

    @classmethod
    def by(cls, table: pa.Table, key: str) -> "Ordered":
        """Order a table by a column of hex digits."""
        order = pc.sort_indices(table[key])
        return cls(table, order, table[key].take(order))

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return int(self.table.num_rows)

    @property
    def schema(self) -> pa.Schema:
        """The table's columns."""
        return self.table.schema

    def slice(self, start: int, count: int) -> pa.Table:
        """Return some rows."""
        return self.table.take(self.order.slice(start, count))


def write_parts(store: Store, rows: Ordered) -> tuple[str, ...]:
    """Write a table; return the names of its parts, in the order of its key."""
    with ThreadPoolExecutor(WRITERS) as writers:
        return tuple(writers.map(lambda part: _write(store, rows.slice(*part)), cut(rows)))


def cut(rows: Ordered) -> Iterator[tuple[int, int]]:
    """Yield first row and number of rows of each part: by the first digits of the key, unless one may hold it all.

    >>> list(cut(Ordered.by(pa.table({"k": ["0a", "1b"]}), "k")))
    [(0, 2)]
    """
    digits = 0
    while rows.num_rows > PART_ROWS * 16**digits:
        digits += 1
    if not rows.num_rows:
        return
    first = pc.utf8_slice_codeunits(rows.keys, 0, digits).combine_chunks().dictionary_encode()
    counts = np.bincount(first.indices.to_numpy(zero_copy_only=False))
    yield from zip((np.cumsum(counts) - counts).tolist(), counts.tolist(), strict=True)


def read_parts(
    store: Store, names: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return some columns of all parts, in their order; raise Missing or Damaged."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    return pa.concat_tables([wanted.empty_table(), *read_each(store, names, wanted)])


def read_each(store: Store, names: Sequence[str], schema: pa.Schema) -> list[pa.Table]:
    """Return the columns of a schema of each part; raise Missing or Damaged."""
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda name: _read(store, name, schema), names))


def table_digest(tables: Sequence[pa.Table | Ordered], *others: str) -> str:
    """Return the digest of tables by their content, not by how a Parquet writer or memory lays it out.

    Of each column and DIGEST_ROWS rows: which are null where some may be, lengths of texts as 32 bits, values.
    """
    digest = blake3("\0".join(others).encode())
    for table in tables:
        digest.update(
            f"{table.num_rows} {[(field.name, str(field.type)) for field in table.schema]}".encode()
        )
        for start in range(0, table.num_rows, DIGEST_ROWS):
            rows = table.slice(start, DIGEST_ROWS).combine_chunks()
            for field, column in zip(rows.schema, rows.columns, strict=True):
                for content in _contents(column.chunk(0), nullable=field.nullable):
                    digest.update(memoryview(content).cast("B"))
    return digest.hexdigest()[:32]


def _contents(values: pa.Array, *, nullable: bool) -> Iterator[Any]:
    if nullable:
        yield pc.is_valid(values).cast(pa.uint8()).to_numpy()
        # Under a null any bytes may lie.
        values = pc.fill_null(values, pa.scalar("" if pa.types.is_string(values.type) else 0, values.type))
    first, count = values.offset, len(values)
    if pa.types.is_string(values.type):
        ends = np.frombuffer(values.buffers()[1], np.int32)[first : first + count + 1]
        yield np.diff(ends)
        yield values.buffers()[2][ends[0] : ends[-1]] if ends[-1] else np.empty(0, np.uint8)
    else:
        width = values.type.bit_width // 8
        yield values.buffers()[1][first * width : (first + count) * width]


def parquet_bytes(table: pa.Table) -> memoryview:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getbuffer()


def _write(store: Store, table: pa.Table) -> str:
    content = parquet_bytes(table)
    name = digest_name("manifests", bytes_digest(content), ".parquet")
    store.write(name, content)
    return name


def _read(store: Store, name: str, schema: pa.Schema) -> pa.Table:
    try:
        # Alone: a folder called "a=b" above it would become a column.
        with pq.ParquetFile(store.local(name), memory_map=True) as file:
            return file.read(columns=schema.names).select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise Damaged(
            f"{name} of the store is damaged ({type(error).__name__}): `radloop dataset verify` lists what is; "
            "restore it from a backup, or ingest into a new dataset"
        ) from None
