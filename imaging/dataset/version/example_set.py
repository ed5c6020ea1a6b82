"""Sets of labelled examples as arrays: labels, keys, and images that are gathered from mapped shards."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.tables.shard import map_shard
from imaging.errors import UserFault
from imaging.preprocess.inverse import UNKNOWN
from imaging.store.protocol import Store

COLUMNS = ("instance_key", "patient_key", "label", "shard", "row")
"""Columns of a manifest that an `ExampleSet` needs."""


@dataclass(frozen=True)
class ExampleMasks:
    """Masks of examples, mapped into memory: that of example i is row `row_of[i]` of `shards[shard_of[i]]`.

    Without a mask both are -1. `shape` is that of one mask.
    """

    shards: tuple[NDArray[np.uint8], ...]
    shard_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls, store: Store, keys: pa.ChunkedArray, rows: pa.Table, shape: tuple[int, ...]
    ) -> "ExampleMasks":
        """Return the masks of examples by their instance keys; `rows` are those of the table of annotations."""
        rows = rows.filter(pc.is_valid(rows["mask_shard"]))
        at = pc.index_in(keys, value_set=rows["instance_key"])
        shards = rows["mask_shard"].take(at).combine_chunks().dictionary_encode()
        return cls(
            shards=tuple(map_shard(store, digest) for digest in shards.dictionary.to_pylist()),
            shard_of=shards.indices.fill_null(-1).to_numpy().astype(np.int64),
            row_of=rows["mask_row"].take(at).fill_null(-1).to_numpy().astype(np.int64),
            shape=shape,
        )

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the masks at these positions; an example without a mask is unknown everywhere."""
        out = np.full((len(index), *self.shape), UNKNOWN, np.uint8)
        return gather_rows(self.shards, self.shard_of[index], self.row_of[index], out)


@dataclass(frozen=True)
class ExampleSet:
    """Labelled examples (n), whose images are mapped into memory.

    `labels` are numbers of classes, -1 where there is none; `findings` (n, names) are 1 where one is present, 0 where
    it is absent, -1 where that is unknown. The image of example i is row `row_of[i]` of `shards[shard_of[i]]`.

    Where the version has masks, `unknown_classes` (n, classes) are those that nobody drew in an example, and
    `spacings_mm` (n, 3) the distances of slices, rows and columns of the model's grid, NaN where they are not known.
    """

    labels: NDArray[np.int64]
    instance_keys: NDArray[np.str_]
    patient_keys: NDArray[np.str_]
    shards: tuple[NDArray[np.uint8], ...]
    shard_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    version_digest: str
    findings: NDArray[np.int8]
    drawn: ExampleMasks | None = None
    unknown_classes: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), np.bool_))
    spacings_mm: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3), np.float64))

    @classmethod
    def of(
        cls,
        store: Store,
        table: pa.Table,
        classes: Sequence[str],
        version_digest: str,
        findings: NDArray[np.int8],
    ) -> "ExampleSet":
        """Return the examples of a table, in its order; it has `COLUMNS`."""
        labels = pc.index_in(table["label"], value_set=pa.array(classes, pa.string())).fill_null(-1)
        shards = table["shard"].combine_chunks().dictionary_encode()
        return cls(
            labels=labels.to_numpy().astype(np.int64),
            instance_keys=np.asarray(table["instance_key"].to_pylist(), np.str_),
            patient_keys=np.asarray(table["patient_key"].to_pylist(), np.str_),
            shards=tuple(map_shard(store, digest) for digest in shards.dictionary.to_pylist()),
            shard_of=shards.indices.to_numpy().astype(np.int64),
            row_of=table["row"].to_numpy().astype(np.int64),
            version_digest=version_digest,
            findings=findings,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the (len(index), size, size) images at these positions."""
        out = np.empty((len(index), *self.shards[0].shape[1:]), np.uint8)
        return gather_rows(self.shards, self.shard_of[index], self.row_of[index], out)

    def masks(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the masks (len(index), [slices,] size, size) at these positions; raise UserFault without any."""
        if self.drawn is None:
            raise UserFault(
                "the dataset has no masks: ingest with --masks into a new dataset, with another --name"
            )
        return self.drawn.gather(index)


def gather_rows(
    shards: Sequence[NDArray[np.uint8]],
    shard_of: NDArray[np.int64],
    row_of: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Fill `out` with rows of shards, and return it; where the number of the shard is -1, it stays as it is."""
    for number in np.unique(shard_of):
        if number >= 0:
            here = np.flatnonzero(shard_of == number)
            out[here] = shards[number][row_of[here]]
    return out
