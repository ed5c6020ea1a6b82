"""Owns tables on their way into the store and out of it: parts of bounded size, named by their content."""

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

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


class Rows(Protocol):
    """A table, or rows of which columns are read when they are asked for."""

    def select(self, columns: list[str], /) -> pa.Table:
        """Return some columns."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a table: its name in the store, and the digest of its rows however they are written."""

    name: str
    content: str


def digits_of(rows: int) -> int:
    """Return how many first digits of the key so many rows are cut by.

    >>> digits_of(PART_ROWS), digits_of(PART_ROWS + 1)
    (0, 1)
    """
    digits = 0
    while rows > PART_ROWS * 16**digits:
        digits += 1
    return digits


def cut(table: pa.Table, key: str, digits: int) -> Iterator[pa.Table]:
    """Yield a table in parts, by the first digits of its key and in the key's order.

    >>> [part["k"].to_pylist() for part in cut(pa.table({"k": ["1b", "0b", "0a"]}), "k", 1)]
    [['0a', '0b'], ['1b']]
    """
    ordered = table.take(pc.sort_indices(table[key]))
    firsts = pc.utf8_slice_codeunits(ordered[key], 0, digits).combine_chunks().dictionary_encode()
    start = 0
    for count in np.bincount(firsts.indices.to_numpy(zero_copy_only=False)).tolist():
        yield ordered.slice(start, count)
        start += count


def write_parts(
    store: Store,
    groups: Sequence[Rows],
    schema: pa.Schema,
    key: str,
    digits: int,
    known: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Part, ...]:
    """Write a table, whose groups come in the order of the key, and return its parts; few groups are held at a time.

    `known` are names of parts that are there by their content: these are not written.
    """

    def write(group: Rows) -> list[Part]:
        table = group.select(schema.names).cast(schema)
        parts = ((rows_digest(rows), rows) for rows in cut(table, key, digits))
        return [Part(known.get(content) or _write(store, rows), content) for content, rows in parts]

    with ThreadPoolExecutor(WRITERS) as writers:
        return tuple(part for parts in writers.map(write, groups) for part in parts)


def read_parts(
    store: Store, names: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return some columns of all parts, in their order; raise Missing or Damaged."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    return pa.concat_tables([wanted.empty_table(), *read_each(store, names, wanted)])


def read_each(store: Store, names: Sequence[str], schema: pa.Schema) -> list[pa.Table]:
    """Return the columns of a schema of each part; raise Missing or Damaged."""
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda name: read_part(store, name, schema, schema.names), names))


def read_part(store: Store, name: str, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a part, of the types of a schema; raise Missing or Damaged."""
    wanted = pa.schema([schema.field(column) for column in columns])
    with _opened(store, name) as file:
        return file.read(columns=wanted.names).select(wanted.names).cast(wanted)


def count_part(store: Store, name: str) -> int:
    """Return how many rows a part has; raise Missing or Damaged."""
    with _opened(store, name) as file:
        return int(file.metadata.num_rows)


def rows_digest(table: pa.Table) -> str:
    """Return the digest of a table by its content, not by how a Parquet writer or memory lays it out.

    Of each column and DIGEST_ROWS rows: which are null where some may be, lengths of texts as 32 bits, values.
    """
    digest = blake3(f"{table.num_rows} {[(field.name, str(field.type)) for field in table.schema]}".encode())
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


@contextmanager
def _opened(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    try:
        # Alone: a folder called "a=b" above it would become a column.
        with pq.ParquetFile(store.local(name), memory_map=True) as file:
            yield file
    except (pa.ArrowException, KeyError, OSError) as error:
        raise Damaged(
            f"{name} of the store is damaged ({type(error).__name__}): `radloop dataset verify` lists what is; "
            "restore it from a backup, or ingest into a new dataset"
        ) from None
