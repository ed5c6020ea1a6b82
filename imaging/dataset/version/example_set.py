"""Sets of labelled examples as arrays: labels, keys, and images that are gathered from mapped shards."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imaging.dataset.tables.shard import map_shard
from imaging.store.protocol import Store

COLUMNS = ("instance_key", "patient_key", "label", "shard", "row")
"""Columns of a manifest that an `ExampleSet` needs."""


@dataclass(frozen=True)
class ExampleSet:
    """Labelled examples (n), whose images are mapped into memory.

    `labels` are numbers of classes, -1 where there is none; the image of example i is row `row_of[i]` of
    `shards[shard_of[i]]`.
    """

    labels: NDArray[np.int64]
    instance_keys: NDArray[np.str_]
    patient_keys: NDArray[np.str_]
    shards: tuple[NDArray[np.uint8], ...]
    shard_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    version_digest: str

    @classmethod
    def of(cls, store: Store, table: pa.Table, classes: Sequence[str], version_digest: str) -> "ExampleSet":
        """Return the examples of a table, in its order; it has `COLUMNS`."""
        number_of = {name: number for number, name in enumerate(classes)}
        shards = table["shard"].combine_chunks().dictionary_encode()
        return cls(
            labels=np.array(
                [-1 if name is None else number_of[name] for name in table["label"].to_pylist()], np.int64
            ),
            instance_keys=np.asarray(table["instance_key"].to_pylist(), np.str_),
            patient_keys=np.asarray(table["patient_key"].to_pylist(), np.str_),
            shards=tuple(map_shard(store, digest) for digest in shards.dictionary.to_pylist()),
            shard_of=shards.indices.to_numpy().astype(np.int64),
            row_of=table["row"].to_numpy().astype(np.int64),
            version_digest=version_digest,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the (len(index), size, size) images at these positions."""
        shard, row = self.shard_of[index], self.row_of[index]
        out = np.empty((len(index), *self.shards[0].shape[1:]), np.uint8)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            out[here] = self.shards[number][row[here]]
        return out
