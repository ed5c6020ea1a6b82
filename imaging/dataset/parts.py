"""Owns tables on their way into the store and out of it: parts of bounded size, named by their content."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3
from numpy.typing import NDArray

from imaging.store.digest import bytes_digest, digest_name
from imaging.store.protocol import Damaged, Store

PART_ROWS = 65_536
"""Rows of a part at most, in the mean: parts are cut by the first digits of the key, so that most stay as they are."""
READERS, WRITERS = 4, 2
DIGEST_ROWS = 8192


def write_parts(store: Store, table: pa.Table, key: str) -> tuple[str, ...]:
    """Write a table that is sorted by a column of hex digits; return the names of its parts, in that order."""
    with ThreadPoolExecutor(WRITERS) as writers:
        return tuple(writers.map(lambda part: _write(store, part), cut(table, key)))


def cut(table: pa.Table, key: str) -> Iterator[pa.Table]:
    """Yield a sorted table by the first digits of its key, none where a part may hold it all.

    >>> [part.num_rows for part in cut(pa.table({"k": ["0a", "1b"]}), "k")]
    [2]
    """
    digits = 0
    while table.num_rows > PART_ROWS * 16**digits:
        digits += 1
    if not table.num_rows:
        return
    first = pc.utf8_slice_codeunits(table[key], 0, digits).combine_chunks().dictionary_encode()
    ends = np.cumsum(np.bincount(first.indices.to_numpy(zero_copy_only=False)))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield table.slice(start, end - start)


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


def table_digest(tables: Sequence[pa.Table], *others: str) -> str:
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


def _contents(values: pa.Array, *, nullable: bool) -> Iterator[NDArray[Any] | pa.Buffer]:
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
