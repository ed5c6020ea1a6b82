"""Ledger of a de-identified folder: one row for each source file, in parts that are written whole."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms
from imaging.refusal_reasons import CONFLICTING_OBJECT
from imaging.sources.protocol import SourceFile
from imaging.store.folder_store import FolderStore

REMOVED = "removed"
"""The reason of a tombstone: the source file is gone, and so is its output."""
MANY_PARTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """The result for one source file: an output, or the reason why there is none.

    `output` is relative to the destination and "" where there is none; `blake3` is that of its bytes. `variant_key` is
    the pseudonym that all spellings of the patient's number share. No original identifier is in it.
    """

    source_key: str
    source_size: int
    source_mtime_ns: int
    output: str = ""
    blake3: str = ""
    reason: str = ""
    detail: str = ""
    variant_key: str = ""


SCHEMA = pa.schema(
    [
        pa.field(item.name, pa.int64() if item.name in ("source_size", "source_mtime_ns") else pa.string())
        for item in fields(LedgerEntry)
    ]
)


@dataclass(frozen=True)
class FileLedger:
    """The rows in a folder of a store; of several rows of one source file the last one counts."""

    store: FolderStore
    folder: str

    def parts(self) -> list[str]:
        """Return the names of the parts in the order in which they were written."""
        return sorted(f"{self.folder}/{path.name}" for path in self.store.path(self.folder).glob("*.parquet"))

    def add(self, rows_file: str) -> None:
        """Move a file of rows to the next part."""
        parts = self.parts()
        name = f"{self.folder}/{int(Path(parts[-1]).stem) + 1 if parts else 0:08d}.parquet"
        self.store.rename(rows_file, name)
        self.store.sync([name])

    def read(self) -> pa.Table:
        """Return all rows in their order."""
        parts = (read_rows(self.store.path(part)) for part in self.parts())
        return pa.concat_tables([SCHEMA.empty_table(), *parts])

    def compact(self, temporary: str) -> None:
        """Write the rows that count as one part, first under a temporary name, and remove the other parts."""
        before = self.parts()
        self.store.write(temporary, to_bytes(latest(self.read())))
        self.add(temporary)
        for part in before:
            self.store.path(part).unlink()


def to_table(entries: Iterable[LedgerEntry]) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist([asdict(entry) for entry in entries], schema=SCHEMA)


def to_bytes(rows: pa.Table) -> bytes:
    """Return rows as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def read_rows(path: Path) -> pa.Table:
    """Return the rows of a part; raise EnvironmentFault where it cannot be read as one."""
    try:
        # Read as a single file: a folder called "a=b" above it would become a column.
        return pq.ParquetFile(path).read().select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, KeyError) as error:
        raise EnvironmentFault(
            f"the ledger part {path.name} is damaged, or of an earlier version ({type(error).__name__}): restore "
            "it from a backup, or give a new destination"
        ) from None


def latest(rows: pa.Table) -> pa.Table:
    """Return the last row of each source file, in the order in which they were written."""
    numbered = pa.table({"key": rows["source_key"], "row": np.arange(rows.num_rows)})
    last = numbered.group_by("key").aggregate([("row", "max")])["row_max"]
    return rows.take(np.sort(last.to_numpy()))


@dataclass(frozen=True)
class ReadPlan:
    """Files to read, rows that are up to date, and rows whose source file is gone.

    `keys` are those of `files`, in their order; `known` is the number of files known before.
    """

    files: Sequence[SourceFile]
    keys: pa.StringArray
    to_read: Sequence[SourceFile]
    known: int
    current: pa.Table
    removed: pa.Table


def plan_reading(files: Sequence[SourceFile], rows: pa.Table, pseudonyms: Pseudonyms) -> ReadPlan:
    """Return which files must be read, by name, size and modification time; `rows` are those that `latest` returns."""
    live = rows.filter(pc.not_equal(rows["reason"], REMOVED))
    keys = pa.array(pseudonyms.keys("file", (file.name for file in files)), pa.string())
    at = pc.index_in(keys, value_set=live["source_key"])
    same = pc.is_valid(at)
    for name, listed in (
        ("source_size", [file.size_bytes for file in files]),
        ("source_mtime_ns", [file.mtime_ns for file in files]),
    ):
        equal = pc.equal(live[name].take(at), pa.array(listed, pa.int64()))
        same = pc.and_(same, pc.fill_null(equal, False))
    current = pc.is_in(live["source_key"], value_set=keys.filter(same))
    if pc.any(pc.and_(pc.not_equal(live["output"], ""), pc.invert(current))).as_py():
        # The other object of a conflict may be gone: objects in conflict are read again.
        current = pc.and_(current, pc.not_equal(live["reason"], CONFLICTING_OBJECT))
        same = pc.is_in(keys, value_set=live["source_key"].filter(current))
    return ReadPlan(
        files=files,
        keys=keys,
        to_read=[files[number] for number in np.flatnonzero(~np.asarray(same)).tolist()],
        known=live.num_rows,
        current=live.filter(current),
        removed=live.filter(pc.invert(pc.is_in(live["source_key"], value_set=keys))),
    )


class InstanceContents:
    """Content of each SOPInstanceUID, as 64 bits of each: a clash among 10 million has a chance of one in 10^5."""

    def __init__(self, outputs: Iterable[tuple[str, str]]) -> None:
        self._known = {_instance(output): _content(blake3) for output, blake3 in outputs if output}

    def claim(self, output: str, blake3: str) -> bool:
        """Tell whether an output may be added: its SOPInstanceUID is new, or has this very content."""
        return self._known.setdefault(_instance(output), _content(blake3)) == _content(blake3)


def output_digests(rows: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield output and digest of each row, with a limited number in memory."""
    for batch in rows.select(["output", "blake3"]).to_batches(max_chunksize=65536):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _instance(output: str) -> int:
    return int.from_bytes(blake2b(output.rpartition("/")[2].encode(), digest_size=8).digest())


def _content(blake3: str) -> int:
    return int(blake3[:16], 16)
