"""Owns the chunks that are finished and stand in no version yet: whoever comes next need not do them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.manifest import concat, those
from imaging.dataset.parts import parquet_bytes, read_each
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
        examples = read_each(self.store, [f"{chunk}.examples.parquet" for chunk in chunks], EXAMPLES)
        refusals = read_each(self.store, [f"{chunk}.refusals.parquet" for chunk in chunks], REFUSALS)
        sources = [_sources(tables) for tables in (examples, refusals)]
        first = pa.concat_tables(sources).group_by("source_key").aggregate([("chunk", "min")])
        of_first = [
            pc.equal(
                first["chunk_min"].take(pc.index_in(told["source_key"], first["source_key"])), told["chunk"]
            )
            for told in sources
        ]
        return Known(
            examples=those(concat(examples, EXAMPLES), of_first[0]),
            refusals=those(concat(refusals, REFUSALS), of_first[1]),
        )

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


def _sources(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the source file of each row, and the number of its chunk."""
    keys = [chunk for table in tables for chunk in table["source_key"].chunks]
    numbers = np.arange(len(tables)).repeat([table.num_rows for table in tables])
    return pa.table({"source_key": pa.chunked_array(keys, pa.string()), "chunk": numbers})
