"""Owns the chunks that are finished and stand in no version yet: whoever comes next need not do them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from imaging.dataset.manifest import codes, concat, those
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
        chunk_of = [
            np.arange(len(chunks)).repeat([table.num_rows for table in of]) for of in (examples, refusals)
        ]
        known = Known(examples=concat(examples, EXAMPLES), refusals=concat(refusals, REFUSALS))
        files = codes(
            pa.chunked_array([*known.examples["source_key"].chunks, *known.refusals["source_key"].chunks])
        )
        first = np.full(files.max(initial=-1) + 1, len(chunks))
        np.minimum.at(first, files, np.concatenate(chunk_of))
        kept = np.split(first[files] == np.concatenate(chunk_of), [known.examples.num_rows])
        return Known(
            examples=those(known.examples, pa.array(kept[0])),
            refusals=those(known.refusals, pa.array(kept[1])),
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
