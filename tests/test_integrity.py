"""Integrity of a version: one changed bit, one lost file or one row too many is detected, and its object named."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from imaging.dataset.tables.shard import shard_name, write_shard
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.dataset.version.head import head_name
from imaging.dataset.version.publish import publish
from imaging.store.content_digest import bytes_digest
from imaging.store.folder_store import FolderStore
from tests.synthetic import built, example, refusal, version_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """Make a version whose rows point into two shards, with nulls in its columns."""
    store = FolderStore(tmp_path_factory.mktemp("store"))
    shards = [write_shard(store, np.full((4, 16, 16), level, np.uint8)) for level in (1, 2)]
    rows = [
        example(
            n, shard=shards[n % 2], row=n // 2, source_label="ab"[n % 2], spacing_mm=[0.5, None][n // 2 % 2]
        )
        for n in range(8)
    ]
    version = built(store, rows, [refusal(9)])
    publish(version, None)
    return version


@pytest.fixture
def version(made: DatasetVersion, tmp_path: Path) -> DatasetVersion:
    """Return a copy that may be broken."""
    assert isinstance(made.store, FolderStore)
    shutil.copytree(made.store.root, tmp_path / "copy")
    opened = newest_version(FolderStore(tmp_path / "copy"), "d")
    assert opened is not None
    return opened


def path(version: DatasetVersion, name: str) -> Path:
    assert isinstance(version.store, FolderStore)
    return version.store.path(name)


def names(version: DatasetVersion) -> list[str]:
    """Return the objects that a version is made of, but for its head."""
    parts = [name for part in version.head.parts.values() for name in part]
    return parts + [
        shard_name(digest) for digest in sorted(set(version.table("examples")["shard"].to_pylist()))
    ]


def test_a_whole_version_has_no_flaw(version: DatasetVersion) -> None:
    assert find_flaws(version) == []


@pytest.mark.parametrize("at", range(5))
def test_every_lost_object_is_named(version: DatasetVersion, at: int) -> None:
    name = names(version)[at]
    path(version, name).unlink()
    assert (name, "is gone") in [(flaw.name, flaw.what) for flaw in find_flaws(version)]


@pytest.mark.parametrize("at", range(5))
def test_one_changed_bit_of_any_object_is_named(version: DatasetVersion, at: int) -> None:
    name = names(version)[at]
    content = bytearray(path(version, name).read_bytes())
    content[len(content) // 2] ^= 1
    path(version, name).write_bytes(content)
    assert [(flaw.name, flaw.what) for flaw in find_flaws(version)] == [(name, "is not what was stored")]


def test_a_damaged_part_does_not_hide_a_damaged_shard(version: DatasetVersion) -> None:
    quarantine, shard = version.head.parts["quarantine"][0], names(version)[-1]
    for name in (quarantine, shard):
        path(version, name).write_bytes(b"")
    assert [flaw.name for flaw in find_flaws(version)] == [quarantine, shard]


@pytest.mark.parametrize(
    ("was", "now"), [('"a",\n  "b"', '"b",\n  "a"'), ('"window_number": 1', '"window_number": 2')]
)
def test_a_head_that_was_changed_is_named(version: DatasetVersion, was: str, now: str) -> None:
    head = path(version, head_name("d", version.digest))
    changed = head.read_text().replace(was, now, 1)
    assert changed != head.read_text()
    head.write_text(changed)
    opened = newest_version(version.store, "d")
    assert opened is not None
    assert [flaw.name for flaw in find_flaws(opened)] == [head_name("d", version.digest)]


def test_a_head_that_names_others_parts_is_named(version: DatasetVersion) -> None:
    other = version_of(version.store, name="other")  # type: ignore[arg-type]
    head = path(version, head_name("d", version.digest))
    head.write_text(
        head.read_text().replace(version.head.parts["examples"][0], other.head.parts["examples"][0])
    )
    opened = newest_version(version.store, "d")
    assert opened is not None
    assert head_name("d", version.digest) in [flaw.name for flaw in find_flaws(opened)]


@pytest.mark.parametrize("row", [4, -1])
def test_a_row_beyond_its_shard_is_a_flaw(tmp_path: Path, row: int) -> None:
    store = FolderStore(tmp_path)
    shard = write_shard(store, np.zeros((4, 16, 16), np.uint8))
    (flaw,) = find_flaws(built(store, [example(0, shard=shard, row=row)]))
    assert flaw.what == f"has 4 rows, and examples point at rows {row} to {row}"


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((4, 8, 8), np.uint8), "of shape (8, 8), and examples are |u1 of shape (16, 16)"),
        (np.zeros((4, 16, 16), np.float32), "holds <f4"),
    ],
)
def test_a_shard_of_other_images_is_a_flaw(tmp_path: Path, array: np.ndarray, what: str) -> None:
    np.save(tmp_path / "it.npy", array)
    assert what in flaw_of(tmp_path, (tmp_path / "it.npy").read_bytes())


def test_a_shard_that_ends_early_is_a_flaw(tmp_path: Path) -> None:
    np.save(tmp_path / "it.npy", np.zeros((4, 16, 16), np.uint8))
    assert "has not the 1024 bytes" in flaw_of(tmp_path, (tmp_path / "it.npy").read_bytes()[:-1])


def test_a_shard_that_is_no_array_is_a_flaw(tmp_path: Path) -> None:
    assert flaw_of(tmp_path, b"no array at all") == "is no array"


def flaw_of(folder: Path, content: bytes) -> str:
    """Return the flaw of a shard of this content, whose name is right."""
    store, digest = FolderStore(folder / "store"), bytes_digest(content)
    store.write(shard_name(digest), content)
    (flaw,) = find_flaws(built(store, [example(0, shard=digest, row=0)]))
    assert flaw.name == shard_name(digest)
    return flaw.what


def test_progress_is_reported(version: DatasetVersion) -> None:
    progress: list[tuple[int, int, int]] = []
    find_flaws(version, lambda *one: progress.append(one))
    sizes = sum(path(version, name).stat().st_size for name in names(version))
    assert (progress[-1][:2], sum(size for _, _, size in progress)) == ((5, 5), sizes)


def test_every_object_is_read_once(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = FolderStore.read
    monkeypatch.setattr(FolderStore, "read", lambda self, name: read.append(name) or whole(self, name))
    find_flaws(version)
    assert sorted(read) == sorted(names(version))
