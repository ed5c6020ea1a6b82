"""Compaction of shards: the small ones that chunks and nights leave are joined into large ones."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imaging.dataset.tables.shard import ShardWriter, map_shard
from imaging.store.protocol import Store

SMALL_BYTES, TARGET_BYTES = 64 * 2**20, 128 * 2**20
"""Shards with fewer bytes than SMALL are joined into shards of TARGET; a rest of fewer than SMALL stays as it is."""


def compact_shards(store: Store, places: pa.Table, shape: tuple[int, ...]) -> pa.Table:
    """Copy the images of small shards into large ones; return the new `shard` and `row` of each row of `places`.

    `shape` is that of one image. The size of a shard is that of its images in `places`. The same images again are the
    same shards.

    Shards are read and written one at a time. The small ones stay, as older versions point to them.
    """
    coded = places["shard"].combine_chunks().dictionary_encode()
    names, shard_of = coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)
    row_of = places["row"].to_numpy().astype(np.int64)
    row_bytes = int(np.prod(shape))
    small = np.bincount(shard_of, minlength=len(names)) * row_bytes < SMALL_BYTES
    order = np.lexsort((row_of, shard_of))
    loose = order[small[shard_of[order]]] if len(order) else order
    for group in _groups(loose, row_bytes):
        with ShardWriter(store, shape) as writer:
            for number, rows in _runs(shard_of[group], row_of[group]):
                writer.add(np.ascontiguousarray(map_shard(store, names[number])[rows]).reshape(-1).data)
            names.append(writer.finish())
        shard_of[group], row_of[group] = len(names) - 1, np.arange(len(group))
    # A few names, and not one for each row.
    shards = pa.DictionaryArray.from_arrays(pa.array(shard_of, pa.int32()), pa.array(names, pa.string()))
    return pa.table({"shard": shards, "row": row_of})


def _groups(rows: NDArray[np.int64], row_bytes: int) -> Iterator[NDArray[np.int64]]:
    """Yield rows for one shard each; too few rows for a shard are left out."""
    least, most = -(-SMALL_BYTES // row_bytes), max(TARGET_BYTES // row_bytes, 1)
    for start in range(0, len(rows), most):
        group = rows[start : start + most]
        if len(group) >= least:
            yield group


def _runs(shard_of: NDArray[np.int64], row_of: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each shard of a sorted group, and its rows."""
    ends = np.flatnonzero(np.r_[shard_of[1:] != shard_of[:-1], True]) + 1
    for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True):
        yield int(shard_of[start]), row_of[start:end]
