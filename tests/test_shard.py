"""Shards: named by their content, written once as their images come, mapped into memory."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from imaging.dataset.tables import shard as module
from imaging.dataset.tables.shard import ShardWriter, map_shard, shard_name, write_shard
from imaging.errors import EnvironmentFault
from imaging.store.folder_store import FolderStore

IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def files(store: FolderStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_shard_reads_back(store: FolderStore) -> None:
    assert np.array_equal(map_shard(store, write_shard(store, IMAGES)), IMAGES)


def test_a_shard_is_mapped_and_cannot_be_written(store: FolderStore) -> None:
    mapped = map_shard(store, write_shard(store, IMAGES))
    assert isinstance(mapped, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0


def test_a_shard_is_named_by_the_blake3_of_its_file(store: FolderStore) -> None:
    digest = write_shard(store, IMAGES)
    (path,) = files(store)
    assert path == store.path(f"shards/{digest[:2]}/{digest}.npy")
    assert blake3(path.read_bytes()).hexdigest() == digest


def test_a_shard_is_the_file_that_numpy_writes(store: FolderStore) -> None:
    plain = io.BytesIO()
    np.save(plain, IMAGES)
    assert store.read(shard_name(write_shard(store, IMAGES))) == plain.getvalue()


def test_images_that_come_in_parts_make_the_same_shard(store: FolderStore) -> None:
    with ShardWriter(store, (4, 4)) as shard:
        for image in IMAGES:
            shard.add(memoryview(image.tobytes()))
        assert shard.rows == 3
        assert shard.finish() == write_shard(store, IMAGES)


def test_more_than_is_synced_at_once_makes_the_same_shard(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SYNC_BYTES", 20)
    with ShardWriter(store, (4, 4)) as shard:
        for image in IMAGES:
            shard.add(memoryview(image.tobytes()))
        assert np.array_equal(map_shard(store, shard.finish()), IMAGES)


def test_equal_images_are_one_shard(store: FolderStore) -> None:
    assert write_shard(store, IMAGES) == write_shard(store, IMAGES.copy())
    assert len(files(store)) == 1


def test_other_images_are_another_shard(store: FolderStore) -> None:
    assert write_shard(store, IMAGES) != write_shard(store, IMAGES + 1)


def test_the_same_bytes_in_another_shape_are_another_shard(store: FolderStore) -> None:
    assert write_shard(store, IMAGES) != write_shard(store, IMAGES.reshape(3, 2, 8))


def test_a_shard_that_is_there_is_young_again_so_that_nobody_collects_it(store: FolderStore) -> None:
    path = store.path(shard_name(write_shard(store, IMAGES)))
    content = path.read_bytes()
    os.utime(path, (1, 1))
    write_shard(store, IMAGES)
    assert (path.stat().st_mtime > 1, path.read_bytes()) == (True, content)


def test_a_shard_that_is_not_finished_leaves_nothing(store: FolderStore) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(store, (4, 4)) as shard:
        shard.add(memoryview(IMAGES.tobytes()))
        raise KeyboardInterrupt
    assert files(store) == []


def test_a_shard_without_images_is_not_begun(store: FolderStore) -> None:
    with ShardWriter(store, (4, 4)):
        pass
    assert not store.root.exists()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_full_disk_is_a_fault_of_the_environment_and_leaves_nothing(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "SYNC_BYTES", 1)
    monkeypatch.setattr(*((os, "fdatasync") if call == "fdatasync" else (module, "_write_all")), full)
    with pytest.raises(EnvironmentFault, match="No space left on device; make room"):
        write_shard(store, IMAGES)
    assert files(store) == []


def test_shards_are_distributed_over_folders() -> None:
    assert shard_name("abcdef") == "shards/ab/abcdef.npy"
