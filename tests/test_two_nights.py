"""Two nights at once, or a night and a person: both finish, and nothing is lost or doubled."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imaging.dataset.version.dataset_version import DatasetVersion, open_version
from imaging.store.folder_store import FolderStore
from tests.growing_archive import content, files_of, grow, images, labels, seen
from tests.ingest_process import Night, Plan, passed

pytestmark = pytest.mark.slow

PLACES = [("plan_ingest", 1), ("with_finished_chunks", 2), ("publish", 1)]
"""Where two nights wait for each other: when both have listed the files, have read them, have made a version."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return a night over an archive of which a first night has taken in a part."""
    plan = Plan(home=tmp_path / "home", source=tmp_path / "archive", labels=labels(tmp_path / "labels.csv"))
    grow(plan.source, 0)
    passed(plan)
    grow(plan.source, 1)
    return plan


@pytest.fixture
def larger(plan: Plan) -> Plan:
    """Return a night over an archive that has more."""
    source = plan.source.with_name("larger")
    shutil.copytree(plan.source, source)
    grow(source, 2)
    return replace(plan, source=source)


def together(*plans: Plan) -> list[dict[str, Any]]:
    """Pass nights that wait for each other where they are paused."""
    nights = [Night(plan) for plan in plans]
    for night in nights:
        assert not night.follow()
    for night in nights:
        night.go()
    return [night.over() for night in nights]


def newest(plan: Plan) -> DatasetVersion:
    version = seen(FolderStore(plan.home / "store"))
    assert version is not None
    return version


def check_files(plan: Plan) -> None:
    """Check that each file of an archive is one example or one refusal, and that nothing else is."""
    version = newest(plan)
    everything = Counter(
        path.relative_to(plan.source).as_posix() for path in plan.source.rglob("*") if path.is_file()
    )
    assert files_of(plan.source, [version.table("examples"), version.table("quarantine")]) == everything
    assert version.table("tombstones").num_rows == 0


@pytest.mark.parametrize("place", PLACES)
def test_of_the_same_archive_they_make_what_one_makes(plan: Plan, place: tuple[str, int]) -> None:
    alone = replace(plan, home=plan.home.with_name("alone"))
    shutil.copytree(plan.home, alone.home)
    passed(alone)
    outcomes = together(*[replace(plan, pause=place)] * 2)
    assert {outcome.get("digest") for outcome in outcomes} == {newest(plan).digest}
    assert content(newest(plan)) == content(newest(alone))


@pytest.mark.parametrize("place", PLACES)
def test_what_one_alone_has_seen_is_there_in_the_end(
    plan: Plan, larger: Plan, place: tuple[str, int]
) -> None:
    outcomes = together(replace(plan, pause=place), replace(larger, pause=place))
    assert ["error" in outcome for outcome in outcomes] == [False, False]
    check_files(larger)


@pytest.mark.parametrize("place", PLACES)
def test_the_one_that_has_seen_more_may_be_the_first(
    plan: Plan, larger: Plan, place: tuple[str, int]
) -> None:
    late = Night(replace(plan, pause=place))
    assert not late.follow()
    passed(larger)
    late.go()
    assert "error" not in late.over()
    check_files(larger)


@pytest.mark.parametrize(
    "place", [("Journal.read", 1), ("Journal.read", 2), ("resolve_conflicts", 1), ("build_version", 1)]
)
def test_chunks_that_another_night_publishes_are_missed_by_nobody(plan: Plan, place: tuple[str, int]) -> None:
    # Not after so many writes: on a busy machine it could have finished all chunks before it is killed.
    killed = Night(replace(plan, pause=("Journal.add", 3)))
    assert not killed.follow()
    killed.kill()
    late = Night(replace(plan, pause=place))
    assert not late.follow()
    passed(plan)
    late.go()
    assert "error" not in late.over()
    check_files(plan)


def test_a_night_and_a_person_with_other_labels_leave_the_labels_of_one(plan: Plan) -> None:
    person = replace(
        plan, labels=labels(plan.labels.with_name("others.csv"), contrary=True), pause=("publish", 1)
    )
    outcomes = together(replace(plan, pause=("publish", 1)), person)
    assert ["error" in outcome for outcome in outcomes] == [False, False]
    made = [open_version(newest(plan).store, "d", outcome["digest"]) for outcome in outcomes]
    check_files(plan)
    assert newest(plan).digest in [version.digest for version in made]
    labels_of = [
        dict(
            zip(
                *version.table("examples").select(["instance_key", "label"]).to_pydict().values(), strict=True
            )
        )
        for version in made
    ]
    assert labels_of[0].keys() == labels_of[1].keys()
    assert all(label != labels_of[1][key] for key, label in labels_of[0].items() if label)
    assert images(made[0]) == images(made[1])


def test_no_patient_changes_sides(plan: Plan, larger: Plan) -> None:
    before = newest(plan).splits()
    together(*(replace(one, pause=("publish", 1)) for one in (plan, larger)))
    assert before.items() <= newest(plan).splits().items()
