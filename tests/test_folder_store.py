"""A store in a folder: objects are whole or absent, and a pointer moves only from where it was seen."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from imaging.errors import EnvironmentFault
from imaging.store.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def fail(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)


def names(store: FolderStore) -> list[str]:
    return [path.name for path in store.root.rglob("*") if path.is_file()]


def test_what_was_written_is_read(store: FolderStore) -> None:
    store.write("a/b/c", b"bytes")
    assert (store.exists("a/b/c"), store.read("a/b/c")) == (True, b"bytes")


def test_what_was_not_written_does_not_exist(store: FolderStore) -> None:
    assert not store.exists("a")


def test_a_folder_is_no_object(store: FolderStore) -> None:
    store.write("a/b", b"")
    assert not store.exists("a")


def test_writing_again_replaces(store: FolderStore) -> None:
    store.write("a", b"long before")
    store.write("a", b"now")
    assert (store.read("a"), names(store)) == (b"now", ["a"])


def test_a_write_that_fails_leaves_nothing(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        store.write("a/b", b"bytes")
    assert names(store) == []


def test_a_write_that_fails_leaves_what_was_there(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("a", b"before")
    fail(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        store.write("a", b"after")
    assert store.read("a") == b"before"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_a_fault_of_the_environment(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail(monkeypatch, code)
    with pytest.raises(EnvironmentFault, match="make room or give write access"):
        store.write("a", b"bytes")


def test_a_draft_is_renamed_only_when_it_is_on_the_disk(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append(store.exists("a")), fsync(number)))
    store.write("a", b"bytes")
    assert seen == [False, True]


def test_a_draft_of_somebody_else_gets_its_name_only_when_it_is_on_the_disk(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    fsync = os.fsync

    def look(number: int) -> None:
        seen.append((Path(f"/proc/self/fd/{number}").readlink().name, store.exists("a")))
        fsync(number)

    monkeypatch.setattr(os, "fsync", look)
    store.path("draft").write_bytes(b"bytes")
    store.settle("draft", "a")
    assert (seen, names(store), store.read("a")) == ([("draft", False)], ["a"], b"bytes")


def test_a_draft_that_the_disk_does_not_take_gets_no_name(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, errno.ENOSPC)
    store.path("draft").write_bytes(b"bytes")
    with pytest.raises(EnvironmentFault, match="make room"):
        store.settle("draft", "a")
    assert names(store) == ["draft"]


def test_every_folder_of_the_names_is_synced_once(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/b/c", "a/b/d", "a/e/f"):
        store.write(name, b"")
    seen: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(Path(f"/proc/self/fd/{number}").readlink()))
    store.sync(["a/b/c", "a/b/d", "a/e/f", "gone/g"])
    assert sorted(seen) == [store.root / name for name in (".", "a", "a/b", "a/e")]


def test_a_folder_that_cannot_be_synced_is_told(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a/b", b"")
    fail(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        store.sync(["a/b"])


def test_a_pointer_that_was_never_set_is_none(store: FolderStore) -> None:
    assert store.pointer("p") is None


def test_a_pointer_moves_from_where_it_was(store: FolderStore) -> None:
    assert store.swap("p", None, "one")
    assert store.swap("p", "one", "two")
    assert store.pointer("p") == "two"


@pytest.mark.parametrize("expected", [None, "other"])
def test_a_pointer_that_somebody_moved_stays(store: FolderStore, expected: Any) -> None:
    store.swap("p", None, "one")
    assert not store.swap("p", expected, "mine")
    assert store.pointer("p") == "one"


def test_of_many_that_swap_at_once_one_wins(store: FolderStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.swap("p", None, str(number)), range(16)))
    assert won.count(True) == 1
    assert store.pointer("p") == str(won.index(True))
