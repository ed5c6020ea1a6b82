"""What every store does, in a folder and on a real S3 server alike."""

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imaging.errors import EnvironmentFault
from imaging.store.content_digest import bytes_digest, digest_name
from imaging.store.open_store import open_store
from imaging.store.protocol import Damaged, Missing, Store
from tests.servers import Server, begin_at, make_bucket, s3_server

LARGE = bytes(range(256)) * 2**16 + b"and a little more"
"""More than one request carries."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "store", tmp_path / "cache")
    server: Server = request.getfixturevalue("server")
    begin_at(monkeypatch, server, tmp_path)
    monkeypatch.setattr("imaging.store.s3_client.PAUSE_S", 0.01)
    make_bucket("protocol")
    return open_store(f"s3://protocol/{tmp_path.name}", tmp_path / "cache")


def named(content: bytes) -> str:
    return digest_name("shards", bytes_digest(content), ".npy")


def listed(store: Store, prefix: str = "") -> list[str]:
    return sorted(entry.name for entry in store.names(prefix))


def test_what_was_written_is_read(store: Store) -> None:
    store.write("a/b/c", b"bytes")
    assert (store.exists("a/b/c"), store.read("a/b/c")) == (True, b"bytes")


def test_nothing_is_an_object_too(store: Store) -> None:
    store.write("a", b"")
    assert (store.exists("a"), store.read("a"), store.local("a").read_bytes()) == (True, b"", b"")


def test_a_view_of_bytes_is_written(store: Store) -> None:
    store.write("a", memoryview(b"some bytes")[5:])
    assert store.read("a") == b"bytes"


def test_what_was_not_written_does_not_exist(store: Store) -> None:
    assert not store.exists("a")


@pytest.mark.parametrize("name", ["a/b", named(b"x")])
def test_what_is_missing_is_reported_by_its_name(store: Store, name: str) -> None:
    for get in (store.read, store.local):
        with pytest.raises(Missing, match=f"{name} is .* restore it from a copy"):
            get(name)


def test_a_part_of_a_name_is_no_object(store: Store) -> None:
    store.write("a/b", b"x")
    assert not store.exists("a")
    with pytest.raises(Missing):
        store.read("a")


def test_writing_the_same_again_is_fine(store: Store) -> None:
    store.write(named(b"x"), b"x")
    store.write(named(b"x"), b"x")
    assert (store.read(named(b"x")), listed(store)) == (b"x", [named(b"x")])


def test_writing_something_else_replaces(store: Store) -> None:
    store.write("a", b"long before")
    store.write("a", b"now")
    assert (store.read("a"), store.local("a").read_bytes()) == (b"now", b"now")


@pytest.mark.parametrize("content", [b"", b"few", LARGE], ids=["empty", "few", "large"])
@pytest.mark.parametrize("fixed", [True, False], ids=["digest", "free"])
def test_a_file_that_is_put_becomes_an_object(
    store: Store, tmp_path: Path, content: bytes, fixed: bool
) -> None:
    path, name = tmp_path / "file", named(content) if fixed else "a/file"
    path.write_bytes(content)
    store.put(name, path)
    assert store.read(name) == content
    assert store.local(name).read_bytes() == content
    assert not path.exists()


def test_a_file_that_is_not_there_cannot_be_put(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put(named(b"x"), tmp_path / "none")
    assert not store.exists(named(b"x"))


def test_a_file_is_put_in_place_of_another(store: Store, tmp_path: Path) -> None:
    store.write("a", b"before")
    path = tmp_path / "file"
    path.write_bytes(b"after")
    store.put("a", path)
    assert store.read("a") == b"after"


def test_an_object_is_damaged_when_its_bytes_do_not_match_its_name(store: Store) -> None:
    store.write(named(b"x"), b"y")
    with pytest.raises(Damaged, match=r"is not what was stored .* restore it"):
        store.read(named(b"x"))


def test_names_are_listed_with_size_and_time(store: Store) -> None:
    store.write("a/b", b"12345")
    (entry,) = store.names()
    assert (entry.name, entry.size_bytes) == ("a/b", 5)
    assert abs(entry.mtime_ns - time.time_ns()) < 60e9


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a/b/c", "a/b2", "a/d", "e"]),
        ("a/", ["a/b/c", "a/b2", "a/d"]),
        ("a/b", ["a/b/c", "a/b2"]),
        ("a/b/", ["a/b/c"]),
        ("e", ["e"]),
        ("nothing/", []),
    ],
)
def test_a_prefix_chooses_names(store: Store, prefix: str, expected: list[str]) -> None:
    for name in ("a/b/c", "a/b2", "a/d", "e"):
        store.write(name, b"")
    assert listed(store, prefix) == expected


def test_more_names_than_fit_a_page_are_listed(store: Store) -> None:
    names = [f"many/{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.write(name, b"x"), names))
    assert listed(store, "many/") == names


def test_what_is_removed_is_gone(store: Store) -> None:
    store.write(named(b"x"), b"x")
    store.local(named(b"x"))
    store.remove(named(b"x"))
    assert (store.exists(named(b"x")), listed(store)) == (False, [])
    with pytest.raises(Missing):
        store.local(named(b"x"))


def test_removing_what_is_not_there_is_fine(store: Store) -> None:
    store.remove("a/b")


def test_a_pointer_that_was_never_set_is_none(store: Store) -> None:
    assert store.pointer("p") is None


def test_a_pointer_moves_from_where_it_was(store: Store) -> None:
    assert store.swap("p", None, "one")
    assert store.swap("p", "one", "two")
    assert store.pointer("p") == "two"


@pytest.mark.parametrize("expected", [None, "other"])
def test_a_pointer_that_somebody_moved_stays(store: Store, expected: str | None) -> None:
    store.swap("p", None, "one")
    assert not store.swap("p", expected, "mine")
    assert store.pointer("p") == "one"


def test_a_pointer_that_was_never_set_does_not_move_from_elsewhere(store: Store) -> None:
    assert not store.swap("p", "somewhere", "mine")
    assert store.pointer("p") is None


def test_moving_to_where_somebody_moved_first_is_no_move(store: Store) -> None:
    assert store.swap("p", None, "same")
    assert not store.swap("p", None, "same")


def test_of_two_that_swap_at_once_one_wins(store: Store) -> None:
    before = None
    with ThreadPoolExecutor(2) as pool:
        for turn in range(10):
            start = before
            won = list(pool.map(lambda side: store.swap("p", start, f"{turn} {side}"), "ab"))  # noqa: B023
            assert sorted(won) == [False, True]
            before = f"{turn} {'ab'[won.index(True)]}"
            assert store.pointer("p") == before


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.write("a", b"x")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"x"  # noqa: S301


def test_an_object_is_opened(store: Store) -> None:
    store.write(named(b"x"), b"x")
    store.write("a", b"y")
    with store.open(named(b"x")) as fixed, store.open("a") as free:
        assert (fixed.read(), free.read()) == (b"x", b"y")


@pytest.mark.parametrize("name", ["a/b", named(b"x")])
def test_what_is_missing_is_not_opened(store: Store, name: str) -> None:
    with pytest.raises(Missing):
        store.open(name)


def test_many_ask_for_a_local_file_at_once(store: Store) -> None:
    store.write(named(LARGE), LARGE)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(store.local, [named(LARGE)] * 16))
    (path,) = paths
    assert path.read_bytes() == LARGE
    assert not list(path.parent.glob(".draft-*"))


def test_sweeping_leaves_what_is_there(store: Store) -> None:
    store.write("a", b"x")
    assert (store.sweep(0), store.read("a")) == (0, b"x")


def test_an_error_is_one_of_the_environment() -> None:
    assert issubclass(Missing, EnvironmentFault)
    assert issubclass(Damaged, EnvironmentFault)
