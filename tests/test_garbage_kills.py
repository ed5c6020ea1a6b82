"""Garbage removal that is killed, or runs beside a night: no version misses anything, and the next run finishes it."""

import multiprocessing
import os
import shutil
import signal
import time
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.dataset.ingest.journal import Journal
from imaging.dataset.tables.shard import write_shard
from imaging.dataset.upkeep.garbage import Retention, find_garbage, remove_garbage
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import newest_version, open_version
from imaging.dataset.version.history import list_versions
from imaging.dataset.version.publish import publish
from imaging.store.durable_file import TEMPORARY
from imaging.store.folder_store import FolderStore
from tests.growing_archive import content, grow, labels, seen
from tests.ingest_process import LOADED, Night, Plan, passed
from tests.synthetic import built, example, examples, recipe, refusal, refusals

pytestmark = pytest.mark.slow

DAY_S = 86400
LONG_AGO_S = 1e9


def night(store: FolderStore, number: int, *levels: int) -> str:
    """Publish a version of some shards, and let it be of a day long ago."""
    shards = [write_shard(store, np.full((2, 16, 16), level, np.uint8)) for level in levels]
    rows = [example(level, shard=shard, row=1) for level, shard in zip(levels, shards, strict=True)]
    version = built(store, rows, [refusal(number)], by=recipe(dataset="ct"))
    assert publish(version, store.pointer("datasets/ct/current"))
    age(store.root, LONG_AGO_S + number * DAY_S)
    return version.digest


def age(folder: Path, now_s: float) -> None:
    """Let what is new be of a time."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mtime > time.time() - DAY_S:
            os.utime(path, (now_s, now_s))


def made(home: Path) -> tuple[str, str]:
    """Make a store with all that a gc removes; return the version that is named, and the newest."""
    store = FolderStore(home / "store")
    digests = [night(store, number, number, number + 1) for number in range(4)]
    shard = write_shard(store, np.full((2, 16, 16), 99, np.uint8))
    rows = examples(example(99, shard=shard, row=0)), refusals(refusal(99))
    Journal(store, "ct", "of another key").add("one", *rows)
    (store.root / "shards" / f"{TEMPORARY}dead").write_bytes(b"half")
    age(store.root, LONG_AGO_S + 3 * DAY_S)
    return digests[1], digests[3]


def collect(home: Path, named: str, last: int | None = None) -> None:
    """Do `radloop dataset gc --yes`; die before a removal."""
    from cli import dataset as dataset_commands

    os.environ["RADLOOP_HOME"] = str(home)
    dataset_commands.named_by_mlflow = lambda _: frozenset([named])
    numbers, unlink = count(), os.unlink

    def dying(*given: Any, **more: Any) -> None:
        if next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(*given, **more)

    os.unlink = dying  # type: ignore[assignment]
    with redirect_stdout(None):
        dataset_commands.gc(keep=1, pin=None, grace_hours=1.0, yes=True, as_json=True)


def collected(home: Path, named: str, last: int | None = None) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    process = context.Process(target=collect, args=(home, named, last))
    process.start()
    process.join()
    return process.exitcode


def files(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in (home / "store").rglob("*") if path.is_file()}


def whole(home: Path) -> set[str]:
    """Return the versions that are listed; each of them is whole."""
    store = FolderStore(home / "store")
    past = list_versions(store)
    for one in past:
        assert find_flaws(open_version(store, one.dataset, one.digest)) == []
    return {one.digest for one in past}


def test_a_gc_that_is_killed_before_any_removal_leaves_versions_whole_and_the_next_one_finishes(
    tmp_path: Path,
) -> None:
    start = tmp_path / "start"
    named, newest = made(start)
    undisturbed = shutil.copytree(start, tmp_path / "undisturbed")
    assert collected(undisturbed, named) == 0
    assert whole(undisturbed) == {named, newest}
    steps = len(files(start)) - len(files(undisturbed))
    # Of two versions the heads, parts and shards; a journal of two files, and a temporary file.
    assert steps >= 10
    for step in range(steps):
        home = shutil.copytree(start, tmp_path / str(step))
        assert collected(home, named, step) == -signal.SIGKILL
        assert {named, newest} <= whole(home)
        assert collected(home, named) == 0
        # The shard of a journal goes with the next gc after it.
        assert files(undisturbed) - files(home) <= {f"store/{kept_once_more(undisturbed)}"}
        assert files(home) <= files(undisturbed)
        assert whole(home) == {named, newest}


def kept_once_more(home: Path) -> str:
    retention = Retention(oldest_ns=time.time_ns(), keep=4)
    (one,) = find_garbage(FolderStore(home / "store"), retention).objects
    return one.name


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return a night after two others, all of which was written days ago."""
    plan = Plan(home=tmp_path / "home", source=tmp_path / "archive", labels=labels(tmp_path / "labels.csv"))
    for number in range(2):
        grow(plan.source, number)
        passed(plan)
        age(plan.home / "store", time.time() - (5 - number) * DAY_S)
    grow(plan.source, 2)
    return plan


def tidy(plan: Plan) -> int:
    """Remove what is older than a day and not needed; return how much that was."""
    store = FolderStore(plan.home / "store")
    garbage = find_garbage(store, Retention(oldest_ns=time.time_ns() - DAY_S * 10**9, keep=1))
    remove_garbage(store, garbage)
    return len(garbage.heads) + len(garbage.journals) + len(garbage.objects)


PLACES = [("find_pending", 1), ("find_pending", 2), ("build_version", 1), ("publish", 1), ("Journal.drop", 1)]


@pytest.mark.parametrize("place", PLACES)
def test_a_gc_beside_a_night_takes_nothing_of_it(plan: Plan, place: tuple[str, int]) -> None:
    alone = replace(plan, home=shutil.copytree(plan.home, plan.home.with_name("alone")))
    passed(alone)
    running = Night(replace(plan, pause=place))
    assert not running.follow()
    assert tidy(plan) > 0
    running.go()
    assert "error" not in running.over()
    assert content(seen(FolderStore(plan.home / "store"))) == content(seen(FolderStore(alone.home / "store")))


@pytest.mark.parametrize("call", [1, 2])
def test_a_gc_that_takes_the_old_chunks_of_a_night_costs_no_more_than_reading_them_again(
    plan: Plan, call: int
) -> None:
    before = newest_version(FolderStore(plan.home / "store"), "d")
    # Not after so many writes: on a busy machine it could have finished all chunks before it is killed.
    killed = Night(replace(plan, pause=("Journal.add", 3)))
    assert not killed.follow()
    killed.kill()
    age(plan.home / "store", time.time() - 2 * DAY_S)
    late = Night(replace(plan, pause=("Journal.read", call)))
    assert not late.follow()
    assert tidy(plan) > 0
    late.go()
    assert "error" not in late.over()
    after = seen(FolderStore(plan.home / "store"))
    assert after is not None
    assert before is not None
    assert after.digest != before.digest
    assert tidy(plan) >= 0
    assert seen(FolderStore(plan.home / "store")) is not None
