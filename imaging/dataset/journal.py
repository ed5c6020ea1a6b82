"""Owns the chunks that are finished and stand in no version yet: whoever comes next need not do them again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.manifest import concat
from imaging.dataset.parts import parquet_bytes, read_parts
from imaging.dataset.rows import EXAMPLES, REFUSALS
from imaging.dataset.scan import Known
from imaging.store.protocol import Store

PLAN_DIGITS = 32


@dataclass(frozen=True)
class Journal:
    """Finished chunks of a dataset, of one key, policy and spec (`made_with`); another would be no part of it."""

    store: Store
    dataset: str
    made_with: str

    def add(self, chunk: str, known: Known) -> None:
        """Write the rows of a chunk, whose shard is in the store; the same chunk again is the same file."""
        # Examples last: a chunk without them is not finished.
        self.store.write(self._name(chunk, "refusals"), parquet_bytes(known.refusals))
        self.store.write(self._name(chunk, "examples"), parquet_bytes(known.examples))

    def chunks(self) -> list[str]:
        """Return the names of the finished chunks."""
        names = (stored.name for stored in self.store.names(self._folder))
        return sorted(
            name.removesuffix(".examples.parquet") for name in names if name.endswith(".examples.parquet")
        )

    def read(self, chunks: Sequence[str]) -> Known:
        """Return the rows of chunks; of a file that is in several, those of the first. Raises Missing, see `drop`."""
        tables = {
            "examples": [read_parts(self.store, [f"{chunk}.examples.parquet"], EXAMPLES) for chunk in chunks],
            "refusals": [read_parts(self.store, [f"{chunk}.refusals.parquet"], REFUSALS) for chunk in chunks],
        }
        first = _first_chunks(*tables.values())
        kept = {
            name: concat(list(_of(parts, first)), parts[0].schema) for name, parts in tables.items() if parts
        }
        return Known(**kept) if kept else Known.nothing()

    def drop(self, chunks: Sequence[str]) -> None:
        """Remove chunks that a version holds now."""
        for chunk in chunks:
            # Examples first: what is half removed is not finished.
            self.store.remove(f"{chunk}.examples.parquet")
            self.store.remove(f"{chunk}.refusals.parquet")

    @property
    def _folder(self) -> str:
        kind = blake2b(self.made_with.encode(), digest_size=8).hexdigest()
        return f"datasets/{self.dataset}/journal/{kind}/"

    def _name(self, chunk: str, table: str) -> str:
        return f"{self._folder}{chunk}.{table}.parquet"


def _first_chunks(*tables: Sequence[pa.Table]) -> pa.Table:
    """Return for each source file the number of the first chunk that has it."""
    pairs = [
        pa.table({"source_key": part["source_key"], "chunk": pa.repeat(number, part.num_rows)})
        for parts in tables
        for number, part in enumerate(parts)
    ]
    return (
        pa.concat_tables(pairs).group_by("source_key").aggregate([("chunk", "min")])
        if pairs
        else pa.table({})
    )


def _of(parts: Sequence[pa.Table], first: pa.Table) -> Iterator[pa.Table]:
    for number, part in enumerate(parts):
        at = pc.index_in(part["source_key"], value_set=first["source_key"])
        yield part.filter(pc.equal(first["chunk_min"].take(at), number))
