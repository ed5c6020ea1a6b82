"""Compaction: small shards become large ones, and every image stays what it was."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from imaging.dataset.tables import compaction
from imaging.dataset.tables.compaction import compact_shards
from imaging.dataset.tables.shard import map_shard, write_shard
from imaging.store.folder_store import FolderStore
from tests.synthetic import example, examples

SHAPE, ROW_BYTES = (4, 4), 16


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count fewer than four images as small, and make shards of eight."""
    monkeypatch.setattr(compaction, "SMALL_BYTES", 4 * ROW_BYTES)
    monkeypatch.setattr(compaction, "TARGET_BYTES", 8 * ROW_BYTES)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def taken_in(store: FolderStore, *counts: int) -> pa.Table:
    """Write a shard of each count of images, every one of another grey level."""
    rows, level = [], 0
    for count in counts:
        levels = range(level, level + count)
        shard = write_shard(store, np.stack([np.full((4, 4), one, np.uint8) for one in levels]))
        rows += [example(one, shard=shard, row=number) for number, one in enumerate(levels)]
        level += count
    return examples(*rows)


def levels(store: FolderStore, table: pa.Table) -> list[int]:
    return [int(map_shard(store, row["shard"])[row["row"]].mean()) for row in table.to_pylist()]


def test_every_image_stays_what_it_was(store: FolderStore) -> None:
    table = taken_in(store, 2, 3, 1, 5, 3)
    assert levels(store, compact_shards(store, table, SHAPE)) == list(range(14))


def test_small_shards_become_one(store: FolderStore) -> None:
    compacted = compact_shards(store, taken_in(store, 2, 3, 2), SHAPE)
    assert len(set(compacted["shard"].to_pylist())) == 1


def test_no_shard_is_larger_than_asked_for(store: FolderStore) -> None:
    compacted = compact_shards(store, taken_in(store, *[2] * 12), SHAPE)
    sizes = [compacted["shard"].to_pylist().count(name) for name in set(compacted["shard"].to_pylist())]
    assert sorted(sizes) == [8, 8, 8]


def test_what_fills_no_shard_stays_as_it_is(store: FolderStore) -> None:
    table = taken_in(store, 2, 1)
    assert compact_shards(store, table, SHAPE).to_pylist() == table.select(["shard", "row"]).to_pylist()


def test_large_shards_stay_as_they_are(store: FolderStore) -> None:
    table = taken_in(store, 6, 5)
    assert compact_shards(store, table, SHAPE).to_pylist() == table.select(["shard", "row"]).to_pylist()


def test_images_that_are_gone_are_left_out(store: FolderStore) -> None:
    table = taken_in(store, 3, 3)
    compacted = compact_shards(store, table.take([0, 2, 3, 5]), SHAPE)
    (shard,) = set(compacted["shard"].to_pylist())
    assert (levels(store, compacted), len(map_shard(store, shard))) == ([0, 2, 3, 5], 4)


def test_rows_may_come_in_any_order(store: FolderStore) -> None:
    table = taken_in(store, 2, 3, 2).take([6, 0, 3, 5, 1, 2, 4])
    assert levels(store, compact_shards(store, table, SHAPE)) == [6, 0, 3, 5, 1, 2, 4]


def test_the_same_again_makes_the_same_shards(store: FolderStore) -> None:
    table = taken_in(store, 2, 3, 2)
    first = compact_shards(store, table, SHAPE)
    before = {stored.name for stored in store.names("")}
    assert compact_shards(store, table, SHAPE).equals(first)
    assert {stored.name for stored in store.names("")} == before


def test_nothing_is_packed_to_nothing(store: FolderStore) -> None:
    assert compact_shards(store, examples(), SHAPE).num_rows == 0
