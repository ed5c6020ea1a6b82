"""Owns the ledger of a de-identified folder: one row for each source file, in parts that are written whole."""

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
from imaging.store.folder import FolderStore

REMOVED = "removed"
"""The reason of a tombstone: the source file is gone, and so is its output."""
MANY_PARTS = 16
KEY_TYPE = "S32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one source file: an output, or the reason why there is none.

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
        for item in fields(Entry)
    ]
)


@dataclass(frozen=True)
class Ledger:
    """The rows below `folder` of a store; of several rows of one source file the last one counts."""

    store: FolderStore
    folder: str

    def parts(self) -> list[str]:
        """Return the names of the parts in the order in which they were written."""
        return sorted(f"{self.folder}/{path.name}" for path in self.store.path(self.folder).glob("*.parquet"))

    def add(self, draft: str) -> None:
        """Make a file of rows the next part."""
        parts = self.parts()
        name = f"{self.folder}/{int(Path(parts[-1]).stem) + 1 if parts else 0:08d}.parquet"
        self.store.rename(draft, name)
        self.store.sync([name])

    def read(self) -> pa.Table:
        """Return all rows in their order."""
        parts = (read_rows(self.store.path(part)) for part in self.parts())
        return pa.concat_tables([SCHEMA.empty_table(), *parts])

    def compact(self, draft: str) -> None:
        """Write the rows that count as one part, by way of `draft`, and drop the others."""
        before = self.parts()
        self.store.write(draft, to_bytes(latest(self.read())))
        self.add(draft)
        for part in before:
            self.store.path(part).unlink()


def to_table(entries: Iterable[Entry]) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist([asdict(entry) for entry in entries], schema=SCHEMA)


def to_bytes(rows: pa.Table) -> bytes:
    """Return rows as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def read_rows(path: Path) -> pa.Table:
    """Read rows; raise EnvironmentFault for a file that is none of ours."""
    try:
        # Alone: a folder called "a=b" above it would become a column.
        return pq.ParquetFile(path).read().select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, KeyError) as error:
        raise EnvironmentFault(
            f"the ledger part {path.name} is damaged, or of an earlier version ({type(error).__name__}): restore "
            "it from a backup, or give a new destination"
        ) from None


def latest(rows: pa.Table) -> pa.Table:
    """Return the last row of each source file, in the order in which these were written."""
    keys = _keys(rows)[::-1]
    return rows.take(np.sort(len(keys) - 1 - np.unique(keys, return_index=True)[1]))


@dataclass(frozen=True)
class Plan:
    """What must be read, what stands, and whose source is gone.

    `keys` are those of `files`, in their order; `known` is how many files were known before.
    """

    files: Sequence[SourceFile]
    keys: NDArray[np.bytes_]
    to_read: Sequence[SourceFile]
    known: int
    standing: pa.Table
    removed: pa.Table


def plan(files: Sequence[SourceFile], rows: pa.Table, pseudonyms: Pseudonyms) -> Plan:
    """Decide by name, size and modification time which files must be read; `rows` are what `latest` returns."""
    live = rows.filter(pa.compute.not_equal(rows["reason"], REMOVED))
    keys = np.array([pseudonyms.key("file", file.name) for file in files], KEY_TYPE)
    at, known = _find(_keys(live), keys)
    sizes = np.array([file.size_bytes for file in files], np.int64)
    times = np.array([file.mtime_ns for file in files], np.int64)
    same = known.copy()
    same[known] &= sizes[known] == live["source_size"].to_numpy()[at[known]]
    same[known] &= times[known] == live["source_mtime_ns"].to_numpy()[at[known]]
    stands, listed = np.zeros((2, live.num_rows), bool)
    stands[at[same]], listed[at[known]] = True, True
    has_output = pa.compute.not_equal(live["output"], "").to_numpy(zero_copy_only=False)
    if (has_output & ~stands).any():
        # What an object was in conflict with may be gone: those are looked at again.
        stands &= pa.compute.not_equal(live["reason"], CONFLICTING_OBJECT).to_numpy(zero_copy_only=False)
        same[known] &= stands[at[known]]
    return Plan(
        files=files,
        keys=keys,
        to_read=[files[number] for number in np.flatnonzero(~same).tolist()],
        known=live.num_rows,
        standing=live.filter(pa.array(stands)),
        removed=live.filter(pa.array(~listed)),
    )


class Instances:
    """Which content stands under which SOPInstanceUID, as 64 bits of each: a clash in 10 million is one in 10^5."""

    def __init__(self, outputs: Iterable[tuple[str, str]]) -> None:
        self._known = {_instance(output): _content(blake3) for output, blake3 in outputs if output}

    def claim(self, output: str, blake3: str) -> bool:
        """Say whether an output may stand: its SOPInstanceUID is new, or has this very content."""
        return self._known.setdefault(_instance(output), _content(blake3)) == _content(blake3)


def pairs(rows: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield output and digest of each row, some at a time in memory."""
    for batch in rows.select(["output", "blake3"]).to_batches(max_chunksize=65536):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _instance(output: str) -> int:
    return int.from_bytes(blake2b(output.rpartition("/")[2].encode(), digest_size=8).digest())


def _content(blake3: str) -> int:
    return int(blake3[:16], 16)


def _keys(rows: pa.Table) -> NDArray[np.bytes_]:
    return np.asarray(rows["source_key"].to_numpy()).astype(KEY_TYPE)


def _find(
    known: NDArray[np.bytes_], wanted: NDArray[np.bytes_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where each wanted key is among the known ones, and whether it is."""
    if not len(known):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), bool)
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    return at, known[at] == wanted
