"""Ingest that is killed at any moment: a reader sees the old version or the new one, and finished chunks stay."""

import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from imaging.dataset.version.dataset_version import newest_version
from imaging.store.folder_store import FolderStore
from imaging.store.open_store import open_store
from tests.conftest import until
from tests.growing_archive import content, files_of, grow, labels, seen
from tests.ingest_process import Night, Plan, begun, passed
from tests.servers import begin_at, make_bucket, s3_server

pytestmark = pytest.mark.slow

KILLS = 50
SANDBOX_EVERY = 10
"""Of the kills, so many meet a night with the sandbox, whose start takes longer than all the rest."""
PIECES = 32
"""Chunks of so many are cut into pieces of four where there are few files."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(home=tmp_path / "killed", source=tmp_path / "archive", labels=labels(tmp_path / "labels.csv"))


@pytest.fixture
def whole(plan: Plan) -> Plan:
    """Return the same nights in a home where nobody is killed."""
    return replace(plan, home=plan.home.with_name("whole"))


def store_of(plan: Plan) -> FolderStore:
    return FolderStore(plan.home / "store")


def finished(plan: Plan) -> set[str]:
    """Return the files that the version has, and those of chunks that are in the journal."""
    ends = plan.home.glob("store/datasets/d/journal/*/*.examples.parquet")
    names = [
        str(path).replace(".examples.", f".{table}.") for path in ends for table in ("examples", "refusals")
    ]
    version = newest_version(store_of(plan), "d")
    tables = [version.table("examples"), version.table("quarantine")] if version else []
    return {*files_of(plan.source, [*tables, *map(pq.read_table, names)])}


def begun_in(plan: Plan, first: int, end: int | None = None) -> set[str]:
    """Return the files of some of the chunks that were begun in a home."""
    return {name for chunk in begun(plan.home)[first:end] for name in chunk}


def kill_again_and_again(plan: Plan, whole: Plan, kills: int, seed: int) -> int:
    """Kill a night whenever it has begun, each with more files than the last; return how many nights there were."""
    chance, killed, night, old = random.Random(seed), 0, 0, None
    while killed < kills:
        files = grow(plan.source, night)
        undisturbed = Night(whole)
        assert undisturbed.over()["files_listed"] == files
        new, over = content(seen(store_of(whole))), False
        while not over:
            done, chunks = finished(plan), len(begun(plan.home))
            tried = Night(replace(plan, in_process=killed % SANDBOX_EVERY > 0))
            over = tried.follow(chance.randint(0, len(undisturbed.steps)))
            if not over:
                time.sleep(chance.random() * 0.005)
                tried.kill(alone=killed % 2 == 0)
                killed += 1
            assert content(seen(store_of(plan))) in (old, new), f"kill {killed} of seed {seed}"
            assert not done & begun_in(plan, chunks), f"kill {killed} of seed {seed}"
        assert content(seen(store_of(plan))) == new
        old, night = new, night + 1
    return night


def test_a_night_that_is_killed_again_and_again_ends_as_one_that_was_not(plan: Plan, whole: Plan) -> None:
    kill_again_and_again(plan, whole, KILLS, seed=5)
    assert not [*plan.home.glob("store/datasets/d/journal/*/*.examples.parquet")]


def on_ray(plan: Plan) -> Plan:
    return replace(plan, ray_from=0, chunk_files=PIECES, in_process=False)


def test_a_worker_of_ray_that_is_killed_costs_its_chunk_alone(plan: Plan, whole: Plan) -> None:
    grow(plan.source, 0)
    passed(whole)
    plan.home.mkdir()
    (plan.home / "die").touch()
    assert "error" not in passed(on_ray(plan))
    counted = Counter(tuple(chunk) for chunk in begun(plan.home))
    assert sorted(counted.values()) == [*[1] * (len(counted) - 1), 2]
    assert content(seen(store_of(plan))) == content(seen(store_of(whole)))


def test_a_night_on_ray_that_is_killed_leaves_no_process_and_what_it_did(plan: Plan, whole: Plan) -> None:
    grow(plan.source, 0)
    passed(whole)
    night = Night(on_ray(plan))
    until(lambda: len(begun(plan.home)) > 3, "the fourth chunk")
    night.kill()
    done, chunks = finished(plan), len(begun(plan.home))
    assert done
    assert seen(store_of(plan)) is None
    passed(plan)
    assert not done & begun_in(plan, chunks)
    assert content(seen(store_of(plan))) == content(seen(store_of(whole)))


def test_a_night_into_s3_is_killed_and_goes_on(
    plan: Plan, whole: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path / "s3") as server:
        begin_at(monkeypatch, server, tmp_path)
        make_bucket("store")
        into = replace(plan, environment={**server.aws, "RADLOOP_STORE": "s3://store/radloop"})
        store = open_store("s3://store/radloop", tmp_path / "cache")
        for night in range(2):
            grow(plan.source, night)
            passed(whole)
            chunks, old = len(begun(plan.home)), content(seen(store))
            tried = Night(into)
            until(lambda: len(begun(plan.home)) > chunks + 2, "the third chunk")  # noqa: B023 (called at once)
            tried.kill()
            again = len(begun(plan.home))
            assert content(seen(store)) == old
            assert "error" not in passed(into)
            # Of the chunks that were begun before the last one, all were done.
            assert not begun_in(plan, again) & begun_in(plan, chunks, again - 1)
            assert content(seen(store)) == content(seen(store_of(whole)))
        version = newest_version(store, "d")
        version.examples("train").gather(np.arange(4))
    # The server is gone.
    rows = version.examples("train")
    assert rows.gather(np.arange(len(rows))).shape == (len(rows), 64, 64)
