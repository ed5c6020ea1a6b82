"""Register of the outputs that a ledger names, and what was found of each: a table on the disk, not in memory."""

import heapq
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from imaging.errors import EnvironmentFault

COLUMNS = ("source_key", "output", "blake3")
ROWS_AT_A_TIME = 16384
CACHE_KIB = 65536
GONE = "it or its original is gone"
CHANGED = "its bytes are not those that were written"
MAKE = """
    CREATE TABLE files (key TEXT PRIMARY KEY, output TEXT, blake3 TEXT) WITHOUT ROWID;
    CREATE TABLE outputs (output TEXT PRIMARY KEY, blake3 TEXT, actual TEXT, why TEXT) WITHOUT ROWID;
"""
# Of one source file the last row counts. Two source files may be the same object; never two different ones.
FILL = """
    INSERT INTO outputs (output, blake3)
    SELECT output, CASE WHEN min(blake3) = max(blake3) THEN min(blake3) ELSE '' END
    FROM files WHERE output != '' GROUP BY output
"""
UNPROVEN = """
    SELECT output, CASE WHEN actual IS NULL THEN coalesce(why, ?) WHEN actual != blake3 THEN ? ELSE why END AS reason
    FROM outputs WHERE reason IS NOT NULL ORDER BY output
"""


class OutputRegister:
    """Outputs named by the parts of a ledger; raises EnvironmentFault for a part that cannot be read."""

    def __init__(self, parts: Iterable[Path]) -> None:
        # Without a name it is a temporary file, which is gone with the connection.
        self._table = sqlite3.connect("")
        self._table.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._table.executescript(MAKE)
        for part in parts:
            self._table.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", _rows(part))
        self._table.execute(FILL)

    def output_of(self, key: str) -> str:
        """Return the output of a source file, "" where it has none."""
        row = self._table.execute("SELECT output FROM files WHERE key = ?", [key]).fetchone()
        return str(row[0]) if row else ""

    def has(self, output: str) -> bool:
        """Tell whether the ledger names an output."""
        return self._table.execute("SELECT 1 FROM outputs WHERE output = ?", [output]).fetchone() is not None

    def record_searched(self, digests: Iterable[tuple[str, str]]) -> None:
        """Record outputs that were searched, with the digests of their bytes."""
        self._table.executemany(
            "UPDATE outputs SET actual = ? WHERE output = ?", [(blake3, output) for output, blake3 in digests]
        )

    def record_unsearched(self, output: str, why: str) -> None:
        """Record why an output could not be searched."""
        self._table.execute("UPDATE outputs SET why = ? WHERE output = ?", [why, output])

    def searched(self) -> int:
        """Count the outputs that were searched."""
        return int(self._table.execute("SELECT count(actual) FROM outputs").fetchone()[0])

    def unproven(self) -> Iterator[tuple[str, str]]:
        """Yield the outputs that were not searched or whose bytes have changed, and why."""
        yield from self._table.execute(UNPROVEN, [GONE, CHANGED])

    def digests(self, others: Iterable[str]) -> Iterator[str]:
        """Yield the digests of all outputs that were searched, and of other files, in order."""
        ours = self._table.execute("SELECT actual FROM outputs WHERE actual IS NOT NULL ORDER BY actual")
        yield from heapq.merge((digest for (digest,) in ours), sorted(others))


def _rows(part: Path) -> Iterator[tuple[str, str, str]]:
    try:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=list(COLUMNS)):
                yield from zip(*(batch[name].to_pylist() for name in COLUMNS), strict=True)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise EnvironmentFault(
            f"the ledger part {part.name} is damaged ({type(error).__name__}): restore it from a backup"
        ) from None
