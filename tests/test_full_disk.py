"""A disk that is full, at whichever write: a clear fault, the old version stands, and with room again it goes on."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from imaging.store.folder_store import FolderStore
from tests.growing_archive import content, files_of, grow, labels, seen
from tests.ingest_process import Night, Plan, begun, passed
from tests.small_disks import small_disk

pytestmark = pytest.mark.slow

PIECES = 48
"""A night's few files are read in two chunks."""
RAY_PIECES = 32
"""On Ray they are read four at a time, by two workers."""
STEP_BYTES = 5 * 4096
"""Of room that there is more of from night to night."""
CHUNK_BYTES = 16 * 4096
"""What a chunk of four takes, with its folders; there is room for two."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return a night over an archive of which a first night has taken in a part."""
    first = Plan(home=tmp_path / "home", source=tmp_path / "archive", labels=labels(tmp_path / "labels.csv"))
    plan = replace(first, chunk_files=PIECES)
    grow(plan.source, 0)
    passed(plan)
    grow(plan.source, 1)
    return plan


def store_of(plan: Plan) -> FolderStore:
    return FolderStore(plan.home / "store")


def copied(plan: Plan, name: str) -> Plan:
    """Return the same night in a copy of the home."""
    home = plan.home.with_name(name)
    shutil.copytree(plan.home, home)
    return replace(plan, home=home)


def lying(store: FolderStore) -> dict[str, int]:
    """Return name and size of all that lies in a store, partial files too."""
    files = (path for path in store.root.rglob("*") if path.is_file())
    return {path.relative_to(store.root).as_posix(): path.stat().st_size for path in files}


def finished(plan: Plan, store: FolderStore | None = None) -> set[str]:
    """Return the files of chunks that are in the journal."""
    ends = (store or store_of(plan)).root.glob("datasets/d/journal/*/*.examples.parquet")
    names = [
        str(path).replace(".examples.", f".{table}.") for path in ends for table in ("examples", "refusals")
    ]
    return {*files_of(plan.source, [pq.read_table(name) for name in names])}


def goes_on(plan: Plan) -> bool:
    """Pass a night with room again; return whether it did no chunk again that was finished."""
    done, chunks = finished(plan), len(begun(plan.home))
    assert "error" not in passed(plan)
    return not done & {name for chunk in begun(plan.home)[chunks:] for name in chunk}


def test_a_full_disk_at_any_write_is_reported_and_loses_no_finished_work(plan: Plan) -> None:
    undisturbed = Night(copied(plan, "whole"))
    undisturbed.over()
    old, new = (
        content(seen(store_of(one))) for one in (plan, replace(plan, home=plan.home.with_name("whole")))
    )
    before: dict[str, int] = {}
    for full_at, step in enumerate(undisturbed.steps):
        night = copied(plan, f"full-{full_at}")
        answer = passed(replace(night, full_at=full_at))
        assert content(seen(store_of(night))) in (old, new)
        if step == "fsync store/datasets/d" and "error" not in answer:
            # The pointer has moved, and the log warns that it may not last.
            assert content(seen(store_of(night))) == new
            continue
        assert answer.get("error") == "EnvironmentFault", (step, answer)
        assert "No space left on device" in answer["message"]
        assert "make room" in answer["message"]
        # Most writes are of partial files, which do not stay: what comes next is the same.
        if before != (before := lying(store_of(night))):
            assert goes_on(night), step
            assert content(seen(store_of(night))) == new
        shutil.rmtree(night.home)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a small disk of its own."""
    with small_disk(tmp_path / "disk", "64m") as place:
        yield place


def give(disk: Path, size: int) -> None:
    """Make a small disk as large as so many bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def test_on_a_small_disk_it_goes_on_as_far_as_there_is_room(plan: Plan, disk: Path) -> None:
    whole = copied(plan, "whole")
    passed(whole)
    old, new = (content(seen(store_of(one))) for one in (plan, whole))
    store = FolderStore(disk / "store")
    shutil.copytree(store_of(plan).root, store.root)
    here = replace(plan, environment={"RADLOOP_STORE": str(store.root)})
    used, faults, answer = shutil.disk_usage(disk).used, 0, {"error": ""}
    while "error" in answer:
        give(disk, used + faults * STEP_BYTES)
        answer = passed(here)
        if "error" in answer:
            assert (answer["error"], "No space left on device" in answer["message"]) == (
                "EnvironmentFault",
                True,
            )
            assert content(seen(store)) in (old, new)
            faults += 1
    assert faults > 3
    assert content(seen(store)) == new


def test_a_full_disk_on_ray_is_reported_and_loses_no_finished_work(plan: Plan, disk: Path) -> None:
    store, old = FolderStore(disk / "store"), content(seen(store_of(plan)))
    shutil.copytree(store_of(plan).root, store.root)
    here = replace(plan, environment={"RADLOOP_STORE": str(store.root)}, chunk_files=RAY_PIECES)
    grow(plan.source, 2)
    give(disk, shutil.disk_usage(disk).used + 2 * CHUNK_BYTES)
    answer = passed(replace(here, ray_from=0, in_process=False))
    assert answer.get("error") == "EnvironmentFault", answer
    assert "No space left on device; make room" in answer["message"]
    assert content(seen(store)) == old
    done, chunks = finished(here, store), len(begun(here.home))
    assert done
    give(disk, 64 << 20)
    assert "error" not in passed(here)
    again = {name for chunk in begun(here.home)[chunks:] for name in chunk}
    assert again
    assert not done & again
