"""Owns the way of rows into groups by the first digits of their key, each small enough to be held whole.

What lies in one group already stays where it is. The rest goes through files: rows of chunks as they were read, or
of a version that was cut into fewer groups.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.tables.lazy_rows import Block, Blocks
from imaging.dataset.tables.table_files import READERS, cut
from imaging.store.disk import disk_faults

MOST_DIGITS = 2
"""Digits of a key that rows are grouped by at most: each group has a file, and a process may open some hundreds."""
WAITING_ROWS = 2**12
"""Rows that are held before they are written to the files of their groups."""


@contextmanager
def spread(rows: Blocks, key: str, digits: int) -> Iterator[list[Blocks]]:
    """Yield rows in groups, in the order of the first digits of a column of hex digits; the files go in the end."""
    digits, groups, loose = min(digits, MOST_DIGITS), dict[str, list[Block]](), list[Block]()
    with ThreadPoolExecutor(READERS) as readers:
        told = list(readers.map(lambda block: _firsts(block, key, digits), rows.blocks))
    for block, firsts in zip(rows.blocks, told, strict=True):
        (groups.setdefault(firsts[0], []) if len(firsts) == 1 else loose).append(block)
    with ExitStack() as ending:
        if loose:
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="radloop-rows-")))
            with disk_faults(folder):
                written = _written(folder, _tables(Blocks(rows.schema, loose)), key, digits)
            for first, count in written.items():
                block = Block(partial(_read, folder / f"{first}.arrow", rows.schema), count)
                groups.setdefault(first, []).append(block)
        yield [Blocks(rows.schema, groups[first]) for first in sorted(groups)]


def _firsts(block: Block, key: str, digits: int) -> list[str]:
    """Return the different first digits of a block's keys."""
    firsts: list[str] = pc.unique(pc.utf8_slice_codeunits(block.select([key])[key], 0, digits)).to_pylist()
    return firsts


def _tables(rows: Blocks) -> Iterator[pa.Table]:
    """Yield rows, those of some blocks at a time."""
    start, waiting = 0, 0
    for number, block in enumerate(rows.blocks, 1):
        waiting += block.num_rows
        if waiting >= WAITING_ROWS or number == len(rows.blocks):
            yield Blocks(rows.schema, rows.blocks[start:number]).select(rows.schema.names).combine_chunks()
            start, waiting = number, 0


def _written(folder: Path, tables: Iterable[pa.Table], key: str, digits: int) -> Mapping[str, int]:
    """Write each group to a file of its own, as its rows come; return the first digits, and how many rows each has."""
    counts, files = dict[str, int](), dict[str, pa.RecordBatchFileWriter]()
    with ExitStack() as ending:
        for table in tables:
            for group in cut(table, key, digits):
                first = group[key][0].as_py()[:digits]
                if first not in files:
                    sink = ending.enter_context(pa.OSFile(str(folder / f"{first}.arrow"), "wb"))
                    files[first] = ending.enter_context(pa.ipc.new_file(sink, table.schema))
                files[first].write_table(group)
                counts[first] = counts.get(first, 0) + group.num_rows
    return counts


def _read(path: Path, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    numbers = [schema.get_field_index(name) for name in columns]
    with pa.OSFile(str(path)) as file:
        options = pa.ipc.IpcReadOptions(included_fields=numbers)
        return pa.ipc.open_file(file, options=options).read_all().select(columns)
