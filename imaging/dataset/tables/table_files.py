"""Files of the tables of a version: Parquet parts of bounded size in the store, named by their content."""

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

from imaging.dataset.tables.schemas import LATER_COLUMNS
from imaging.store.content_digest import bytes_digest, digest_name
from imaging.store.protocol import Damaged, Store

PART_ROWS = 65_536
"""Most rows of a part in the mean; parts are cut by the first digits of the key, so that most stay as they are."""
READERS, WRITERS = 4, 2
DIGEST_ROWS = 8192


class ColumnSource(Protocol):
    """A table in memory, or rows whose columns are read when they are asked for."""

    def select(self, columns: list[str], /) -> pa.Table:
        """Return some columns."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a table: its name in the store, and the digest of its rows however they are written."""

    name: str
    content: str


def prefix_digits(rows: int) -> int:
    """Return by how many first digits of the key a table of so many rows is cut into parts.

    >>> prefix_digits(PART_ROWS), prefix_digits(PART_ROWS + 1)
    (0, 1)
    """
    digits = 0
    while rows > PART_ROWS * 16**digits:
        digits += 1
    return digits


def cut_by_prefix(table: pa.Table, key: str, digits: int) -> Iterator[pa.Table]:
    """Yield a table in parts, one for each value of the key's first digits, in the order of the key.

    >>> [part["k"].to_pylist() for part in cut_by_prefix(pa.table({"k": ["1b", "0b", "0a"]}), "k", 1)]
    [['0a', '0b'], ['1b']]
    """
    ordered = table.take(pc.sort_indices(table[key]))
    prefixes = pc.utf8_slice_codeunits(ordered[key], 0, digits).combine_chunks().dictionary_encode()
    start = 0
    for count in np.bincount(prefixes.indices.to_numpy(zero_copy_only=False)).tolist():
        yield ordered.slice(start, count)
        start += count


def write_parts(
    store: Store,
    groups: Sequence[ColumnSource],
    schema: pa.Schema,
    key: str,
    digits: int,
    known: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Part, ...]:
    """Write a table, whose groups come in the order of the key, and return its parts.

    Two groups at a time are in memory. `known` gives the names of stored parts by the digests of their rows: these are
    not written again.
    """

    def write(group: ColumnSource) -> list[Part]:
        table = group.select(schema.names).cast(schema)
        kept = map(_without_defaults, cut_by_prefix(table, key, digits))
        parts = ((rows_digest(rows), rows) for rows in kept)
        return [Part(known.get(content) or _write(store, rows), content) for content, rows in parts]

    with ThreadPoolExecutor(WRITERS) as writers:
        return tuple(part for parts in writers.map(write, groups) for part in parts)


def read_parts(
    store: Store, names: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return some columns of all parts, in their order; raise Missing or Damaged."""
    chosen = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    return pa.concat_tables([chosen.empty_table(), *read_each(store, names, chosen)])


def read_each(store: Store, names: Sequence[str], schema: pa.Schema) -> list[pa.Table]:
    """Return the columns of a schema of each part; raise Missing or Damaged."""
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda name: read_part(store, name, schema, schema.names), names))


def read_part(store: Store, name: str, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a part, of the types of a schema; raise Missing or Damaged."""
    chosen = pa.schema([schema.field(column) for column in columns])
    with _open_part(store, name) as file:
        table = file.read(columns=chosen.names)
        for column, value in LATER_COLUMNS.items():
            if column in chosen.names and column not in table.column_names:
                table = table.append_column(column, pa.repeat(value, file.metadata.num_rows))
        return table.select(chosen.names).cast(chosen)


def read_whole(store: Store, name: str) -> pa.Table:
    """Return a part as it is stored, with columns that only a newer release knows; raise Missing or Damaged."""
    with _open_part(store, name) as file:
        return file.read()


def count_part(store: Store, name: str) -> int:
    """Return how many rows a part has; raise Missing or Damaged."""
    with _open_part(store, name) as file:
        return int(file.metadata.num_rows)


def rows_digest(table: pa.Table) -> str:
    """Return the digest of a table's content, which does not depend on its layout in a file or in memory.

    It covers of each column, DIGEST_ROWS rows at a time: which are null where some may be, lengths of texts as 32 bits,
    values.
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


def _without_defaults(rows: pa.Table) -> pa.Table:
    """Leave out newer columns in which every row has what rows of older releases have."""
    there = LATER_COLUMNS.keys() & set(rows.column_names)
    same = (name for name in there if rows[name].unique().to_pylist() in ([], [LATER_COLUMNS[name]]))
    return rows.drop_columns(sorted(same))


@contextmanager
def _open_part(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    try:
        # Alone: a folder called "a=b" above it would become a column.
        with pq.ParquetFile(store.local(name), memory_map=True) as file:
            yield file
    except (pa.ArrowException, KeyError, OSError) as error:
        raise Damaged(
            f"{name} of the store is damaged ({type(error).__name__}): `radloop dataset verify` lists what is; "
            "restore it from a backup, or ingest into a new dataset"
        ) from None
