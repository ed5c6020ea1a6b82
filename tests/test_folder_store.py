"""Store in a folder: objects are whole or absent, and a pointer moves only from its expected value."""

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from imaging.errors import EnvironmentFault
from imaging.store import folder_store
from imaging.store.folder_store import FolderStore
from tests.small_disks import small_disk


class Broken:
    """A disk on which waiting for files or folders fails from a call on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folders: bool) -> None:
        self.sync = os.fsync
        self.folders = folders
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == self.folders:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.sync(descriptor)


CALLS = ("mkdir", "open", "writev", "fsync", "replace")
"""What a write asks of the system, in `os`."""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def fail(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)


def names(store: FolderStore) -> list[str]:
    return [path.name for path in store.root.rglob("*") if path.is_file()]


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


def test_a_temporary_file_is_renamed_only_when_it_is_on_the_disk(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append(store.exists("a")), fsync(number)))
    store.write("a", b"bytes")
    assert seen == [False, True]


def test_a_temporary_file_of_somebody_else_gets_its_name_only_when_it_is_on_the_disk(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    fsync = os.fsync

    def look(number: int) -> None:
        seen.append((Path(f"/proc/self/fd/{number}").readlink().name, store.exists("a")))
        fsync(number)

    monkeypatch.setattr(os, "fsync", look)
    store.path("partial").write_bytes(b"bytes")
    store.finalize("partial", "a")
    assert (seen, names(store), store.read("a")) == ([("partial", False)], ["a"], b"bytes")


def test_a_temporary_file_that_the_disk_does_not_take_gets_no_name(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, errno.ENOSPC)
    store.path("partial").write_bytes(b"bytes")
    with pytest.raises(EnvironmentFault, match="make room"):
        store.finalize("partial", "a")
    assert names(store) == ["partial"]


def test_every_folder_of_the_names_is_synced_once(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/b/c", "a/b/d", "a/e/f"):
        store.write(name, b"")
    seen: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(Path(f"/proc/self/fd/{number}").readlink()))
    store.sync(["a/b/c", "a/b/d", "a/e/f", "gone/g"])
    assert sorted(seen) == [store.root / name for name in (".", "a", "a/b", "a/e")]


def test_a_folder_that_cannot_be_synced_is_reported(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("a/b", b"")
    fail(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        store.sync(["a/b"])


def test_of_many_that_swap_at_once_one_wins(store: FolderStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.swap("p", None, str(number)), range(16)))
    assert won.count(True) == 1
    assert store.pointer("p") == str(won.index(True))


def test_a_lock_that_somebody_keeps_is_reported(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_store, "LOCK_TIMEOUT_S", 0.1)
    with (
        FileLock(store.path(".p.lock")),
        pytest.raises(EnvironmentFault, match="another process has kept the lock of p"),
    ):
        store.swap("p", None, "one")
    assert store.swap("p", None, "one")


def test_temporary_files_and_locks_are_no_objects(store: FolderStore) -> None:
    store.swap("a/p", None, "one")
    store.path("a/.draft-1").write_bytes(b"")
    assert [entry.name for entry in store.names()] == ["a/p"]


def test_only_old_temporary_files_are_swept(store: FolderStore) -> None:
    for name, age in (("a/.draft-old", 7200), ("a/.draft-new", 0)):
        store.write(name, b"half")
        passed = store.path(name).stat().st_mtime - age
        os.utime(store.path(name), (passed, passed))
    assert (store.sweep(3600), names(store)) == (1, [".draft-new"])


def test_a_new_folder_lasts_too(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(Path(f"/proc/self/fd/{number}").readlink()))
    store.write("a/b/c", b"")
    assert {store.root, store.root / "a", store.root / "a/b"} < set(seen)


def test_a_file_that_is_put_is_renamed_only_when_it_is_on_the_disk(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda number: seen.append((Path(f"/proc/self/fd/{number}").readlink().name, store.exists("a"))),
    )
    store.path("file").write_bytes(b"bytes")
    store.put("a", store.path("file"))
    assert seen == [("file", False), (store.root.name, True)]


def test_a_file_of_another_disk_is_copied(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, path = os.replace, store.path("file")

    def across(source: Path, target: Path) -> None:
        if Path(source) == path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", across)
    path.write_bytes(b"bytes")
    store.put("a", path)
    assert (store.read("a"), names(store)) == (b"bytes", ["a"])


def test_a_folder_that_cannot_be_read_is_not_empty(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        list(store.names())


def put(store: FolderStore) -> None:
    store.path(".made").write_bytes(b"new")
    store.put("a/b/old", store.path(".made"))


WRITES: dict[str, Callable[[FolderStore], object]] = {
    "write": lambda store: store.write("a/b/old", b"new"),
    "write elsewhere": lambda store: store.write("c/d/e", b"new"),
    "put": put,
    "swap": lambda store: store.swap("a/b/old", "old", "new"),
}


def full(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Let the `at`-th call that needs room fail; return the list of those that were made."""
    made: list[str] = []

    def limited(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*given: object, **named: object) -> object:
            made.append(name)
            if len(made) == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*given, **named)

        return wrapped

    for name in CALLS:
        monkeypatch.setattr(os, name, limited(name, getattr(os, name)))
    return made


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_disk_that_is_full_at_any_call_leaves_what_was_there(
    tmp_path: Path, write: Callable[[FolderStore], object]
) -> None:
    at, made = 0, [""]
    while len(made) >= at:
        at, failed, store = at + 1, False, FolderStore(tmp_path / str(at))
        store.write("a/b/old", b"old")
        with pytest.MonkeyPatch.context() as monkeypatch:
            made = full(monkeypatch, at)
            try:
                write(store)
            except EnvironmentFault as fault:
                assert "No space left on device; make room" in str(fault)
                failed = True
        # The name is there before it lasts: the call that makes it last may be what fails.
        done = made[: at - 1] if failed else made
        changed = "replace" in done and write is not WRITES["write elsewhere"]
        assert store.read("a/b/old").strip() == (b"new" if changed else b"old")
        moved = changed and write is WRITES["swap"]
        assert failed != moved or len(made) < at or made[at - 1] == "mkdir", (
            "only a folder that is there may be asked for, and only a pointer that was moved may not last"
        )
        assert not list(store.root.rglob(".draft-*"))
    assert at > 4


def test_a_small_disk_fills_up_and_is_used_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as place:
        store = FolderStore(place)
        store.write("a", b"old")
        large = tmp_path / "large"
        large.write_bytes(bytes(128 * 1024))
        for write in (
            lambda: store.write("a", large.read_bytes()),
            lambda: store.put("a", large),
        ):
            with pytest.raises(EnvironmentFault, match=r"cannot write a below .* make room"):
                write()
            assert (store.read("a"), names(store), large.exists()) == (b"old", ["a"], True)
        large.write_bytes(bytes(16 * 1024))
        store.put("a", large)
        assert store.read("a") == bytes(16 * 1024)


@pytest.mark.parametrize("before", [None, "one"])
def test_a_moved_pointer_is_reported_as_moved_though_the_disk_does_not_confirm_it(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, before: str | None
) -> None:
    store.path("p").parent.mkdir(exist_ok=True)
    if before:
        assert store.swap("p", None, before)
    Broken(monkeypatch, folders=True)
    assert store.swap("p", before, "two")
    assert store.pointer("p") == "two"
    (message,) = [record.getMessage() for record in caplog.records]
    assert "did not say that this lasts (OSError): check the disk" in message
    assert str(store.root) not in message


def test_a_pointer_that_was_not_moved_is_no_success(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.swap("p", None, "one")
    Broken(monkeypatch, folders=False)
    with pytest.raises(OSError, match="Input/output"):
        store.swap("p", "one", "two")
    assert (store.pointer("p"), caplog.records) == ("one", [])


def test_a_pointer_that_cannot_be_read_again_is_no_success(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broken(monkeypatch, folders=True)
    seen = iter([None])

    def once(self: FolderStore, name: str) -> str | None:
        for value in seen:
            return value
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FolderStore, "pointer", once)
    with pytest.raises(OSError, match="Input/output"):
        store.swap("p", None, "one")


def test_an_object_whose_name_may_not_last_is_an_error(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broken(monkeypatch, folders=True)
    with pytest.raises(OSError, match="Input/output"):
        store.write("a", b"bytes")
