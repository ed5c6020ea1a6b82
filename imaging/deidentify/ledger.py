"""Owns the ledger of a de-identified folder: one row for each source file, in parts that are written whole."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imaging.store.folder import FolderStore

REMOVED = "removed"
"""The reason of a tombstone: the source file is gone, and so is its output."""
CONFLICT = "conflict"
"""The reason of an object whose SOPInstanceUID stands with other content."""
COMPACT_PARTS = 16
PARTS = "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one source file: an output, or the reason why there is none.

    `output` is relative to the destination and "" where there is none; `sha256` is that of its bytes. `variant_key` is
    the pseudonym that all spellings of the patient's number share. No original identifier is in it.
    """

    source_key: str
    source_size: int
    source_mtime_ns: int
    output: str = ""
    sha256: str = ""
    reason: str = ""
    detail: str = ""
    variant_key: str = ""


SCHEMA = pa.schema(
    [
        pa.field(item.name, pa.int64() if item.name in ("source_size", "source_mtime_ns") else pa.string())
        for item in fields(Entry)
    ]
)


@dataclass(frozen=True)
class Ledger:
    """The rows of a destination in `folder/parts`; of several rows of one source file the last one counts."""

    folder: Path

    @cached_property
    def _store(self) -> FolderStore:
        return FolderStore(self.folder)

    def parts(self) -> list[Path]:
        """Return the parts in the order in which they were written."""
        return sorted((self.folder / PARTS).glob("*.parquet"))

    def append(self, draft: Path) -> None:
        """Make a Parquet file of rows, written by `write_rows`, the next part."""
        raise NotImplementedError

    def rows(self) -> pa.Table:
        """Return the last row of each source file, tombstones among them."""
        raise NotImplementedError


def table_of(entries: Sequence[Entry]) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist([asdict(entry) for entry in entries], schema=SCHEMA)
