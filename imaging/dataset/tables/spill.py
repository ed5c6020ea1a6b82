"""Grouping of rows by the first digits of their key, in files where they do not lie so already.

Each group is small enough for memory. A block whose rows are all of one group stays where it is. Of the other blocks
(rows of chunks as they were read, or of a version that was cut into fewer groups) each row is written to the temporary
file of its group.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.tables.lazy_rows import Block, LazyRows
from imaging.dataset.tables.table_files import READERS, cut_by_prefix
from imaging.store.durable_file import disk_faults

MOST_DIGITS = 2
"""Digits of a key that rows are grouped by at most: each group has a file, and a process may open some hundreds."""
WAITING_ROWS = 2**12
"""Rows that are collected before they are written to the files of their groups."""


@contextmanager
def grouped_by_prefix(rows: LazyRows, key: str, digits: int) -> Iterator[list[LazyRows]]:
    """Yield the groups in the order of the first digits of a column of hex digits; then remove the files."""
    digits, groups, mixed = min(digits, MOST_DIGITS), dict[str, list[Block]](), list[Block]()
    with ThreadPoolExecutor(READERS) as readers:
        prefixes = list(readers.map(lambda block: _prefixes(block, key, digits), rows.blocks))
    for block, of_block in zip(rows.blocks, prefixes, strict=True):
        (groups.setdefault(of_block[0], []) if len(of_block) == 1 else mixed).append(block)
    with ExitStack() as stack:
        if mixed:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="radloop-rows-")))
            with disk_faults(folder):
                counts = _write_groups(folder, _tables(LazyRows(rows.schema, mixed)), key, digits)
            for prefix, count in counts.items():
                block = Block(partial(_read_columns, folder / f"{prefix}.arrow", rows.schema), count)
                groups.setdefault(prefix, []).append(block)
        yield [LazyRows(rows.schema, groups[prefix]) for prefix in sorted(groups)]


def _prefixes(block: Block, key: str, digits: int) -> list[str]:
    """Return the different first digits of a block's keys."""
    prefixes: list[str] = pc.unique(pc.utf8_slice_codeunits(block.select([key])[key], 0, digits)).to_pylist()
    return prefixes


def _tables(rows: LazyRows) -> Iterator[pa.Table]:
    """Yield the rows of as many blocks at a time as make WAITING_ROWS."""
    start, waiting = 0, 0
    for number, block in enumerate(rows.blocks, 1):
        waiting += block.num_rows
        if waiting >= WAITING_ROWS or number == len(rows.blocks):
            yield LazyRows(rows.schema, rows.blocks[start:number]).select(rows.schema.names).combine_chunks()
            start, waiting = number, 0


def _write_groups(folder: Path, tables: Iterable[pa.Table], key: str, digits: int) -> Mapping[str, int]:
    """Append the rows of tables to the file of their group; return how many rows each group has, by first digits."""
    counts, files = dict[str, int](), dict[str, pa.RecordBatchFileWriter]()
    with ExitStack() as stack:
        for table in tables:
            for group in cut_by_prefix(table, key, digits):
                prefix = group[key][0].as_py()[:digits]
                if prefix not in files:
                    sink = stack.enter_context(pa.OSFile(str(folder / f"{prefix}.arrow"), "wb"))
                    files[prefix] = stack.enter_context(pa.ipc.new_file(sink, table.schema))
                files[prefix].write_table(group)
                counts[prefix] = counts.get(prefix, 0) + group.num_rows
    return counts


def _read_columns(path: Path, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    numbers = [schema.get_field_index(name) for name in columns]
    with pa.OSFile(str(path)) as file:
        options = pa.ipc.IpcReadOptions(included_fields=numbers)
        return pa.ipc.open_file(file, options=options).read_all().select(columns)
