"""Cache of a store on S3: it stays within its limit, and never removes a copy in use."""

import mmap
import os
import time
from concurrent.futures import ProcessPoolExecutor
from fcntl import LOCK_SH, flock
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.errors import EnvironmentFault
from imaging.store import cache as caching
from imaging.store.cache import Cache
from tests.small_disks import small_disk

MB = 10**6
OLD_S = 1000.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", limit_bytes=10 * MB)


def keep(cache: Cache, name: str, size: int, used_s: float) -> Path:
    path = cache.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used_s, used_s))
    return path


def names(cache: Cache) -> set[str]:
    return {path.relative_to(cache.folder).as_posix() for path in cache.folder.rglob("*") if path.is_file()}


def three(cache: Cache) -> None:
    for number, name in enumerate(("a/old", "b/older", "c/oldest")):
        keep(cache, name, 3 * MB, OLD_S - number)


def test_what_was_used_least_recently_goes_first(cache: Cache) -> None:
    three(cache)
    assert cache.make_room(3 * MB)
    assert names(cache) == {"a/old", "b/older"}


def test_what_is_asked_for_is_used(cache: Cache) -> None:
    three(cache)
    assert cache.has(cache.folder / "c/oldest")
    assert cache.make_room(3 * MB)
    assert names(cache) == {"a/old", "c/oldest"}


def test_where_there_is_room_nothing_goes(cache: Cache) -> None:
    three(cache)
    assert cache.make_room(MB)
    assert len(names(cache)) == 3


def test_what_is_open_stays(cache: Cache) -> None:
    three(cache)
    opened = cache.open(cache.folder / "c/oldest")
    assert opened
    os.utime(cache.folder / "c/oldest", (0, 0))
    with opened:
        assert cache.make_room(3 * MB)
    assert names(cache) == {"a/old", "c/oldest"}


def test_what_is_mapped_stays_until_nothing_of_it_is(cache: Cache) -> None:
    three(cache)
    with cache.open(cache.folder / "c/oldest") as file:  # type: ignore[union-attr]
        part = np.memmap(file, np.uint8, "r")[5:10]
    os.utime(cache.folder / "c/oldest", (0, 0))
    assert not cache.make_room(8 * MB)
    assert names(cache) == {"c/oldest"}
    del part
    assert cache.make_room(8 * MB)
    assert names(cache) == set()


def test_what_was_just_asked_for_stays(cache: Cache) -> None:
    kept = keep(cache, "young", 9 * MB, time.time() - caching.YOUNG_S / 2)
    assert not cache.make_room(3 * MB)
    assert kept.exists()


def test_a_copy_that_went_while_it_was_opened_is_none(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep(cache, "a", 1, OLD_S)

    def late(file: Any, operation: int) -> None:
        kept.unlink()
        flock(file, operation)

    monkeypatch.setattr(caching, "flock", late)
    assert cache.open(kept) is None


def test_what_is_being_fetched_stays_and_is_counted(cache: Cache) -> None:
    three(cache)
    temporary = keep(cache, ".temporary-1", 6 * MB, OLD_S - 9)
    with temporary.open("ab") as writing:
        flock(writing, LOCK_SH)
        assert cache.make_room(3 * MB)
        assert names(cache) == {".temporary-1"}


def test_what_a_dead_process_was_fetching_goes(cache: Cache) -> None:
    keep(cache, ".temporary-1", 9 * MB, OLD_S)
    assert cache.make_room(9 * MB)
    assert names(cache) == set()


def test_no_more_is_kept_than_fits(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(bytes(11 * MB))
    cache.add_file(cache.folder / "a", tmp_path / "sent")
    cache.add_bytes(cache.folder / "b", bytes(11 * MB))
    assert (names(cache), (tmp_path / "sent").exists()) == (set(), False)


def test_what_was_sent_becomes_a_copy_without_being_copied(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"x")
    number = (tmp_path / "sent").stat().st_ino
    cache.add_file(cache.folder / "a/b", tmp_path / "sent")
    assert (cache.folder / "a/b").stat().st_ino == number


def test_a_copy_of_a_file_on_another_disk_is_made(cache: Cache, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "sent").write_bytes(b"x")
        cache.add_file(cache.folder / "a", disk / "sent")
        assert not (disk / "sent").exists()
    assert (cache.folder / "a").read_bytes() == b"x"


def test_on_a_full_disk_what_is_old_goes_below_the_limit_too(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "10m") as disk:
        cache = Cache(disk / "cache")
        three(cache)
        assert cache.make_room(4 * MB)
        assert names(cache) == {"a/old", "b/older"}


def test_on_a_full_disk_what_was_sent_is_gone(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        cache = Cache(disk / "cache")
        (tmp_path / "sent").write_bytes(bytes(MB))
        cache.add_file(cache.folder / "a", tmp_path / "sent")
        cache.add_bytes(cache.folder / "b", bytes(MB))
        assert (names(cache), (tmp_path / "sent").exists()) == (set(), False)


def test_a_full_disk_is_reported_with_what_bounds_the_cache(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        cache = Cache(disk / "cache", 5 * 10**9)
        message = r"cannot write a below .*/cache: .*RADLOOP_CACHE_GB, here 5 GB.*nothing was published"
        with pytest.raises(EnvironmentFault, match=message), cache.faults(cache.folder / "a"):
            keep(cache, "a", MB, OLD_S)


def map_and_ask(folder: Path, met: Barrier, mine: str) -> bool:
    """Map a copy, and let all make room for more than there is."""
    cache = Cache(folder, 10 * MB)
    with cache.open(folder / mine) as file:  # type: ignore[union-attr]
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.utime(folder / mine, (0, 0))
    met.wait(60)
    cache.make_room(10 * MB)
    met.wait(60)
    return (folder / mine).exists() and len(mapped) == 3 * MB


def test_two_processes_leave_each_other_what_is_mapped(cache: Cache) -> None:
    three(cache)
    context = get_context("spawn")
    with context.Manager() as shared, ProcessPoolExecutor(2, context) as pool:
        met = shared.Barrier(2)
        asked = [pool.submit(map_and_ask, cache.folder, met, name) for name in ("a/old", "b/older")]
        assert [one.result() for one in asked] == [True, True]
    assert names(cache) == {"a/old", "b/older"}
