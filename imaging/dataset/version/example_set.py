"""Owns chosen examples as arrays: labels, keys, and images gathered out of mapped shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imaging.dataset.tables.row_operations import codes
from imaging.dataset.tables.shard import map_shard
from imaging.store.protocol import Store

COLUMNS = ("instance_key", "patient_key", "label", "shard", "row")
"""What `rows_of` needs of a manifest."""


@dataclass(frozen=True)
class Rows:
    """Labelled examples, their images mapped into memory."""

    labels: NDArray[np.int64]
    instance_keys: NDArray[np.str_]
    patient_keys: NDArray[np.str_]
    shards: tuple[NDArray[np.uint8], ...]
    shard_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    version_digest: str

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


def rows_of(store: Store, table: pa.Table, classes: Sequence[str], version_digest: str) -> Rows:
    """Return the examples of a table, in its order; it has `COLUMNS`."""
    number_of: Mapping[str, int] = {name: number for number, name in enumerate(classes)}
    shard_of = codes(table["shard"])
    digests = table["shard"].combine_chunks().dictionary_encode().dictionary.to_pylist()
    return Rows(
        labels=np.array([number_of[name] for name in table["label"].to_pylist()], np.int64),
        instance_keys=np.asarray(table["instance_key"].to_pylist(), np.str_),
        patient_keys=np.asarray(table["patient_key"].to_pylist(), np.str_),
        shards=tuple(map_shard(store, digest) for digest in digests),
        shard_of=shard_of,
        row_of=table["row"].to_numpy().astype(np.int64),
        version_digest=version_digest,
    )
