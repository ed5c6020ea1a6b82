"""Journal of finished chunks that are in no version yet, so that the next run need not do them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import pyarrow as pa

from imaging.dataset.ingest.diff import KnownRows
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.schemas import EXAMPLES, REFUSALS
from imaging.dataset.tables.table_files import parquet_bytes, read_each
from imaging.store.protocol import Store

PLAN_DIGITS = 32


@dataclass(frozen=True)
class Journal:
    """Finished chunks of a dataset, all of one key, policy and spec, which `made_with` names."""

    store: Store
    dataset: str
    made_with: str

    def add(self, chunk: str, examples: pa.Table, refusals: pa.Table) -> None:
        """Write the rows of a chunk, whose shard is in the store; the same chunk again is the same file."""
        # Examples last: a chunk without them is not finished.
        self.store.write(self._name(chunk, "refusals"), parquet_bytes(refusals))
        self.store.write(self._name(chunk, "examples"), parquet_bytes(examples))

    def chunks(self) -> list[str]:
        """Return the names of the finished chunks."""
        names = (stored.name for stored in self.store.names(self._folder))
        return sorted(
            name.removesuffix(".examples.parquet") for name in names if name.endswith(".examples.parquet")
        )

    def read(self, chunks: Sequence[str]) -> list[KnownRows]:
        """Return the rows of each chunk; a file may be in several. Raises Missing, see `drop`."""
        examples = LazyRows.stored(self.store, [f"{chunk}.examples.parquet" for chunk in chunks], EXAMPLES)
        refusals = read_each(self.store, [f"{chunk}.refusals.parquet" for chunk in chunks], REFUSALS)
        return [
            KnownRows(examples=LazyRows(EXAMPLES, [block]), refusals=refused)
            for block, refused in zip(examples.blocks, refusals, strict=True)
        ]

    def drop(self, chunks: Sequence[str]) -> None:
        """Remove chunks whose rows are in a version now, or superseded."""
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
