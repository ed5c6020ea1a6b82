"""Garbage of a store: what nothing needs is removed, and no version that stays ever misses anything."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.dataset.ingest.journal import Journal
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.schemas import EXAMPLES, TABLES
from imaging.dataset.tables.shard import shard_name, write_shard
from imaging.dataset.upkeep.garbage import Garbage, Retention, find_garbage, remove_garbage
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version, open_version
from imaging.dataset.version.head import head_name
from imaging.dataset.version.history import list_versions
from imaging.dataset.version.publish import build_version, publish
from imaging.errors import EnvironmentFault, UserFault
from imaging.store.folder_store import FolderStore
from tests.requirements import MEMORY
from tests.synthetic import built, example, examples, recipe, refusal, refusals

NIGHT_S = 86400
NOW_S = 1000 * NIGHT_S
"""Long after everything of these tests."""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def age(store: FolderStore, night: int) -> None:
    """Let everything that is new be of a night."""
    for path in store.root.rglob("*"):
        if path.is_file() and path.stat().st_mtime > NOW_S:
            os.utime(path, (night * NIGHT_S, night * NIGHT_S))


def shard(store: FolderStore, level: int) -> str:
    return write_shard(store, np.full((2, 16, 16), level, np.uint8))


def night(store: FolderStore, number: int, name: str = "ct", levels: tuple[int, ...] = ()) -> DatasetVersion:
    """Publish the version of a night: a shard of its own, or some; one row of each."""
    rows = [
        example(level, shard=shard(store, level), row=1, model=str(number)) for level in levels or (number,)
    ]
    version = built(store, rows, [refusal(number)], by=recipe(dataset=name))
    assert publish(version, store.pointer(f"datasets/{name}/current"))
    age(store, number)
    return version


def retention(**changes: Any) -> Retention:
    return Retention(**{"keep": 1, "oldest_ns": NOW_S * 10**9} | changes)


def collected(store: FolderStore, **changes: Any) -> Garbage:
    garbage = find_garbage(store, retention(**changes))
    remove_garbage(store, garbage)
    return garbage


def left(store: FolderStore) -> set[str]:
    """Return the digests of the versions that are left; each of them is whole."""
    past = list_versions(store)
    for one in past:
        assert find_flaws(open_version(store, one.dataset, one.digest)) == []
    return {one.digest for one in past}


def objects(store: FolderStore) -> set[str]:
    return {one.name for folder in ("shards/", "manifests/") for one in store.names(folder)}


def test_looking_removes_nothing(store: FolderStore) -> None:
    for number in range(3):
        night(store, number)
    before = objects(store)
    assert len(find_garbage(store, retention()).heads) == 2
    assert (objects(store), len(list_versions(store))) == (before, 3)


def test_the_newest_versions_stay_with_all_that_they_need(store: FolderStore) -> None:
    made = [night(store, number).digest for number in range(5)]
    collected(store, keep=2)
    assert left(store) == set(made[3:])


def test_what_only_old_versions_need_goes(store: FolderStore) -> None:
    night(store, 0)
    newest = night(store, 1)
    collected(store)
    needed = {name for names in newest.head.parts.values() for name in names}
    assert objects(store) == needed | {shard_name(newest.table("examples")["shard"][0].as_py())}


def test_what_old_and_new_share_stays(store: FolderStore) -> None:
    night(store, 0, levels=(5, 6))
    newest = night(store, 1, levels=(6, 7))
    collected(store)
    assert left(store) == {newest.digest}


def test_versions_are_counted_by_dataset(store: FolderStore) -> None:
    made = [night(store, number, name).digest for number, name in enumerate(["ct", "ct", "mr", "ct--shadow"])]
    collected(store)
    assert left(store) == set(made[1:])


def test_a_shard_of_another_dataset_stays(store: FolderStore) -> None:
    night(store, 0, "ct", levels=(9,))
    night(store, 1, "ct", levels=(8,))
    other = night(store, 2, "mr", levels=(9,))
    collected(store)
    assert other.digest in left(store)


def test_a_version_that_mlflow_names_is_never_broken(store: FolderStore) -> None:
    made = [night(store, number).digest for number in range(4)]
    collected(store, named=frozenset([made[0], "unknown"]))
    assert left(store) == {made[0], made[3]}


def test_a_pinned_version_stays(store: FolderStore) -> None:
    made = [night(store, number).digest for number in range(4)]
    collected(store, pins=(made[1][:10],))
    assert left(store) == {made[1], made[3]}


@pytest.mark.parametrize("pin", ["nothing", ""])
def test_a_pin_that_names_nothing_stops_it(store: FolderStore, pin: str) -> None:
    night(store, 0)
    night(store, 1)
    with pytest.raises(UserFault, match=f"no version begins with '{pin}', which --pin names"):
        collected(store, pins=(pin,))
    assert len(left(store)) == 2


def test_the_current_version_stays_however_old_it_is(store: FolderStore) -> None:
    made = [night(store, number).digest for number in range(4)]
    assert store.swap("datasets/ct/current", made[3], made[0])
    collected(store)
    assert left(store) == {made[0], made[3]}


def test_nothing_young_goes(store: FolderStore) -> None:
    made = [night(store, number).digest for number in range(4)]
    orphan = shard(store, 99)
    age(store, 3)
    collected(store, oldest_ns=2 * NIGHT_S * 10**9)
    # The second was the newest when what is young began.
    assert left(store) == set(made[1:])
    assert store.exists(shard_name(orphan))


def test_a_shard_that_no_version_names_goes(store: FolderStore) -> None:
    night(store, 0)
    orphan = shard_name(shard(store, 99))
    age(store, 0)
    assert orphan in [one.name for one in collected(store).objects]
    assert not store.exists(orphan)


def test_what_is_no_part_of_datasets_stays(store: FolderStore) -> None:
    night(store, 0)
    night(store, 1).test_examples("somebody")
    for name in ("training/run/checkpoint", "ledger/entry", "datasets/ct/notes.txt", "shards/notes.txt"):
        store.write(name, b"x")
    age(store, 0)
    before = {one.name for one in store.names()} - objects(store)
    gone = {one.name for one in collected(store).heads}
    assert {one.name for one in store.names()} - objects(store) == before - gone


@pytest.mark.parametrize("name", ["journal", "versions", "shards", "test-reads"])
def test_a_dataset_may_be_called_anything(store: FolderStore, name: str) -> None:
    digest = night(store, 0, name).digest
    collected(store)
    assert left(store) == {digest}


def journal(store: FolderStore, chunk: str, level: int, name: str = "ct", made_with: str = "k") -> Journal:
    """Finish a chunk, which is in no version yet."""
    made = Journal(store, name, made_with)
    rows = examples(example(level, shard=shard(store, level), row=0))
    made.add(chunk, rows, refusals(refusal(level)))
    return made


def test_a_stale_journal_goes_and_its_shards_the_next_time(store: FolderStore) -> None:
    night(store, 0)
    made = journal(store, "one", 50)
    name = shard_name(shard(store, 50))
    age(store, 1)
    assert (len(collected(store).journals), made.chunks(), store.exists(name)) == (2, [], True)
    collected(store)
    assert not store.exists(name)


def test_a_journal_that_still_grows_stays_whole(store: FolderStore) -> None:
    night(store, 0)
    made = journal(store, "one", 50)
    age(store, 1)
    journal(store, "two", 51)
    age(store, 3)
    collected(store, oldest_ns=2 * NIGHT_S * 10**9)
    assert [chunk.examples.num_rows for chunk in made.read(made.chunks())] == [1, 1]
    assert store.exists(shard_name(shard(store, 50)))


def test_a_stale_journal_of_another_key_does_not_wait_for_this_ones(store: FolderStore) -> None:
    old = journal(store, "one", 50, made_with="old")
    age(store, 1)
    new = journal(store, "one", 51)
    age(store, 3)
    collected(store, oldest_ns=2 * NIGHT_S * 10**9)
    assert (old.chunks(), len(new.chunks())) == ([], 1)


@pytest.mark.parametrize("what", ["published", "damaged"])
def test_a_journal_that_cannot_be_read_needs_nothing(store: FolderStore, what: str) -> None:
    version = night(store, 0)
    chunk = journal(store, "one", 50).chunks()[0]
    store.path(f"{chunk}.examples.parquet").write_bytes(b"")
    if what == "published":
        store.remove(f"{chunk}.examples.parquet")
    collected(store)
    assert left(store) == {version.digest}


def test_a_night_that_publishes_meanwhile_is_whole(store: FolderStore) -> None:
    for number in range(3):
        night(store, number)
    made = journal(store, "one", 50)
    age(store, 3)
    listed = find_garbage(store, retention(oldest_ns=10 * NIGHT_S * 10**9))
    old = newest_version(store, "ct")
    assert old is not None
    (known,) = made.read(made.chunks())
    rows = [
        *old.table("examples", examples().column_names).to_pylist(),
        *known.examples.select(EXAMPLES.names).to_pylist(),
    ]
    new = built(store, [*rows, example(60, shard=shard(store, 60), row=0)], by=recipe(dataset="ct"))
    remove_garbage(store, listed)
    assert publish(new, old.digest)
    assert find_flaws(new) == []
    collected(store, oldest_ns=10 * NIGHT_S * 10**9)
    assert new.digest in left(store)


def test_a_chunk_that_leaves_the_journal_meanwhile_is_in_a_version_that_is_seen(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(store, 0)
    made = journal(store, "one", 50)
    age(store, 1)
    # Published after the journal was listed, and before it was read.
    read = find_garbage.__globals__["_of_journals"]

    def late(*arguments: Any) -> Any:
        rows = made.read(made.chunks())[0].examples.select(EXAMPLES.names).to_pylist()
        version = built(store, rows, by=recipe(dataset="ct"))
        assert publish(version, store.pointer("datasets/ct/current"))
        made.drop(made.chunks())
        return read(*arguments)

    monkeypatch.setitem(find_garbage.__globals__, "_of_journals", late)
    collected(store)
    newest = newest_version(store, "ct")
    assert newest is not None
    assert find_flaws(newest) == []


def broken(name: str) -> Callable[[FolderStore, DatasetVersion], object]:
    return {
        "a head of another format": lambda store, version: store.write(
            head_name("ct", version.digest), b'{"format": 1}'
        ),
        "a head that is no JSON": lambda store, version: store.write(
            head_name("ct", version.digest), b'{"for'
        ),
        "a part that is gone": lambda store, version: store.remove(version.head.parts["examples"][0]),
    }[name]


@pytest.mark.parametrize(
    "what", ["a head of another format", "a head that is no JSON", "a part that is gone"]
)
def test_nothing_goes_where_a_version_that_stays_cannot_be_read(store: FolderStore, what: str) -> None:
    night(store, 0)
    broken(what)(store, night(store, 1))
    before = {one.name for one in store.names()}
    with pytest.raises(EnvironmentFault):
        collected(store)
    assert {one.name for one in store.names()} == before


def test_an_old_version_that_cannot_be_read_goes(store: FolderStore) -> None:
    old = night(store, 0)
    newest = night(store, 1)
    broken("a head of another format")(store, old)
    age(store, 0)
    collected(store)
    assert left(store) == {newest.digest}


def test_what_is_cut_short_goes_the_next_time(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [night(store, number).digest for number in range(4)]
    for calls in range(1, 12):
        with monkeypatch.context() as patch:
            done = iter(range(calls))
            whole = FolderStore.remove

            def killed(self: FolderStore, name: str, done: Any = done, whole: Any = whole) -> None:
                if next(done, None) is None:
                    raise KeyboardInterrupt
                whole(self, name)

            patch.setattr(FolderStore, "remove", killed)
            with suppress(KeyboardInterrupt):
                collected(store)
        assert made[3] in left(store)
    collected(store)
    assert left(store) == {made[3]}
    assert find_garbage(store, retention()).objects == ()


def test_progress_is_reported(store: FolderStore) -> None:
    night(store, 0)
    night(store, 1)
    progress: list[tuple[int, int]] = []
    garbage = find_garbage(store, retention(), lambda *one: progress.append(one))
    remove_garbage(store, garbage, lambda *one: progress.append(one))
    assert progress[0] == (1, 1)
    assert progress[-1] == (1 + len(garbage.objects), 1 + len(garbage.objects))


@pytest.mark.slow
@settings(max_examples=25)
@given(
    nights=st.lists(
        st.tuples(st.sampled_from(["ct", "mr"]), st.sets(st.integers(0, 6), min_size=1)),
        min_size=1,
        max_size=8,
    ),
    keep=st.integers(1, 4),
    named=st.sets(st.integers(0, 7)),
    oldest=st.integers(0, 9),
)
def test_what_stays_is_whole_and_what_goes_is_nobodys(
    nights: list[tuple[str, set[int]]], keep: int, named: set[int], oldest: int
) -> None:
    with TemporaryDirectory(dir=MEMORY) as folder:
        store = FolderStore(Path(folder))
        made = [night(store, at, name, tuple(sorted(levels))) for at, (name, levels) in enumerate(nights)]
        digests = frozenset(made[at].digest for at in named if at < len(made))
        collected(store, keep=keep, named=digests, oldest_ns=oldest * NIGHT_S * 10**9)
        stayed = left(store)
        assert digests <= stayed
        for name in ("ct", "mr"):
            mine = [one.digest for one in made if one.head.dataset == name]
            assert set(mine[-keep:]) <= stayed
        # Made again with nothing to wait for, whatever is left is what the versions that stayed need.
        collected(store, keep=99, oldest_ns=99 * NIGHT_S * 10**9)
        assert left(store) == stayed
        needed = {shard_name(key) for one in made if one.digest in stayed for key in shards_of(one)}
        assert {one.name for one in store.names("shards/")} == needed


def shards_of(version: DatasetVersion) -> list[str]:
    keys: list[str] = version.table("examples", ["shard"])["shard"].to_pylist()
    return keys


def test_the_masks_of_a_version_stay(store: FolderStore) -> None:
    """Of two shards that are old, the one that an annotation names is kept."""
    rows = [example(0, shard=shard(store, 1), row=0)]
    mask, lost = shard(store, 7), shard(store, 8)
    row = {"instance_key": "i0", "target": "heart", "kind": "mask", "mask_shard": mask, "mask_row": 1}
    masks = pa.Table.from_pylist([row], TABLES["annotations"])
    version = build_version(
        store, recipe(), LazyRows.of(examples(*rows)), refusals(), None, annotations=masks
    )
    assert publish(version, None)
    age(store, 1)
    removed = {one.name for one in find_garbage(store, Retention(keep=1, oldest_ns=NOW_S * 10**9)).objects}
    assert removed == {shard_name(lost)}
    assert find_flaws(version) == []
    store.remove(shard_name(mask))
    assert [flaw.what for flaw in find_flaws(version)] == ["is gone"]
