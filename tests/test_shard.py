"""Shards: named by their content, written once, mapped into memory."""

from pathlib import Path

import numpy as np
import pytest

from imaging.dataset.shard import map_shard, shard_name, write_shard
from imaging.store.folder import FolderStore

IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_a_shard_reads_back(store: FolderStore) -> None:
    assert np.array_equal(map_shard(store, write_shard(store, IMAGES)), IMAGES)


def test_a_shard_is_mapped_and_cannot_be_written(store: FolderStore) -> None:
    mapped = map_shard(store, write_shard(store, IMAGES))
    assert isinstance(mapped, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0


def test_equal_images_are_one_shard(store: FolderStore) -> None:
    assert write_shard(store, IMAGES) == write_shard(store, IMAGES.copy())
    assert len(list(store.root.rglob("*.npy"))) == 1


def test_other_images_are_another_shard(store: FolderStore) -> None:
    assert write_shard(store, IMAGES) != write_shard(store, IMAGES + 1)


def test_the_same_bytes_in_another_shape_are_another_shard(store: FolderStore) -> None:
    assert write_shard(store, IMAGES) != write_shard(store, IMAGES.reshape(3, 2, 8))


def test_a_shard_that_is_there_is_not_written_again(store: FolderStore) -> None:
    path = store.path(shard_name(write_shard(store, IMAGES)))
    path.write_bytes(b"somebody reads this")
    write_shard(store, IMAGES)
    assert path.read_bytes() == b"somebody reads this"


def test_shards_are_spread_over_folders() -> None:
    assert shard_name("abcdef") == "shards/ab/abcdef.npy"
