"""Ledger of a de-identified folder: one row for each source file, in parts that are written whole."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms
from imaging.refusal_reasons import CONFLICTING_OBJECT
from imaging.sources.protocol import SourceFile
from imaging.store.folder_store import FolderStore

REMOVED = "removed"
"""The reason of a tombstone: the source file is gone, and so is its output."""
MANY_PARTS = 16
KEY_TYPE = "S32"


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
    keys = _keys(rows)[::-1]
    return rows.take(np.sort(len(keys) - 1 - np.unique(keys, return_index=True)[1]))


@dataclass(frozen=True)
class ReadPlan:
    """Files to read, rows that are up to date, and rows whose source file is gone.

    `keys` are those of `files`, in their order; `known` is the number of files known before.
    """

    files: Sequence[SourceFile]
    keys: NDArray[np.bytes_]
    to_read: Sequence[SourceFile]
    known: int
    current: pa.Table
    removed: pa.Table


def plan_reading(files: Sequence[SourceFile], rows: pa.Table, pseudonyms: Pseudonyms) -> ReadPlan:
    """Return which files must be read, by name, size and modification time; `rows` are those that `latest` returns."""
    live = rows.filter(pa.compute.not_equal(rows["reason"], REMOVED))
    keys = np.array([pseudonyms.key("file", file.name) for file in files], KEY_TYPE)
    at, known = _positions(_keys(live), keys)
    sizes = np.array([file.size_bytes for file in files], np.int64)
    times = np.array([file.mtime_ns for file in files], np.int64)
    same = known.copy()
    same[known] &= sizes[known] == live["source_size"].to_numpy()[at[known]]
    same[known] &= times[known] == live["source_mtime_ns"].to_numpy()[at[known]]
    is_current, listed = np.zeros((2, live.num_rows), bool)
    is_current[at[same]], listed[at[known]] = True, True
    has_output = pa.compute.not_equal(live["output"], "").to_numpy(zero_copy_only=False)
    if (has_output & ~is_current).any():
        # The other object of a conflict may be gone: objects in conflict are read again.
        is_current &= pa.compute.not_equal(live["reason"], CONFLICTING_OBJECT).to_numpy(zero_copy_only=False)
        same[known] &= is_current[at[known]]
    return ReadPlan(
        files=files,
        keys=keys,
        to_read=[files[number] for number in np.flatnonzero(~same).tolist()],
        known=live.num_rows,
        current=live.filter(pa.array(is_current)),
        removed=live.filter(pa.array(~listed)),
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


def _keys(rows: pa.Table) -> NDArray[np.bytes_]:
    return np.asarray(rows["source_key"].to_numpy()).astype(KEY_TYPE)


def _positions(
    known: NDArray[np.bytes_], wanted: NDArray[np.bytes_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the position of each wanted key among the known ones, and whether it is there."""
    if not len(known):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), bool)
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    return at, known[at] == wanted
