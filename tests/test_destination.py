"""A destination: what it refuses, and that whoever dies between two steps leaves nothing half-done for good."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from imaging.deidentify.folder.destination import Destination, check_apart, partial_name
from imaging.deidentify.folder.file_ledger import (
    REMOVED,
    SCHEMA,
    InstanceContents,
    LedgerEntry,
    latest,
    to_bytes,
    to_table,
)
from imaging.errors import EnvironmentFault, UserFault
from imaging.refusal_reasons import CONFLICTING_OBJECT
from tests.destination_nights import BEFORE, MADE, entry

REPOSITORY = Path(__file__).parent.parent
NOTHING = SCHEMA.empty_table()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Destination]:
    destination = Destination(tmp_path / "out")
    with destination.locked(MADE):
        yield destination


def commit(
    made: Destination, *entries: LedgerEntry, instances: InstanceContents | None = None
) -> list[LedgerEntry]:
    with made.partial_files() as partial:
        for one in entries:
            (partial / partial_name(one.source_key)).write_text(one.blake3)
        return list(made.commit(partial, entries, instances or InstanceContents(())))


def outputs(root: Path) -> dict[str, str]:
    return {path.stem: path.read_text()[0] for path in root.rglob("*.dcm")}


def test_a_new_folder_is_made_and_remembers_how(tmp_path: Path) -> None:
    with Destination(tmp_path / "out").locked(MADE):
        pass
    Destination(tmp_path / "out").check(MADE)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("key_fingerprint", "e" * 16, "the key ffffffffffffffff"),
        (
            "options",
            {"dates": "remove"},
            r"the options \{'dates': 'shift'\} and this run has \{'dates': 'rem",
        ),
        ("edition", "2027a", "the edition of the profile 2026c"),
        ("profile_sha256", "b" * 64, "the table of the profile"),
    ],
)
def test_another_making_is_refused_with_the_remedy(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    with Destination(tmp_path / "out").locked(MADE):
        pass
    with pytest.raises(UserFault, match=f"{message}.*give a new destination"):
        Destination(tmp_path / "out").check(replace(MADE, **{field: value}))


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserFault, match="holds other files"), Destination(tmp_path).locked(MADE):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UserFault, match="is no folder: make it"),
        Destination(tmp_path / "no" / "out").locked(MADE),
    ):
        pass


def test_a_second_run_is_kept_out(tmp_path: Path) -> None:
    with (
        Destination(tmp_path / "out").locked(MADE),
        pytest.raises(UserFault, match="another run is writing"),
        Destination(tmp_path / "out").locked(MADE),
    ):
        pass


def test_what_is_beside_the_images_is_for_its_owner_alone(tmp_path: Path) -> None:
    with Destination(tmp_path / "out").locked(MADE):
        pass
    assert (tmp_path / "out" / ".radloop").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("source", "destination"), [("a", "a/b"), ("a/b", "a"), ("a", "a"), ("a", "c/../a")])
def test_a_destination_in_the_source_or_around_it_is_refused(
    tmp_path: Path, source: str, destination: str
) -> None:
    with pytest.raises(UserFault, match="lie in one another"):
        check_apart(tmp_path / source, tmp_path / destination)


def test_a_link_into_the_source_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "archive")
    with pytest.raises(UserFault, match="lie in one another"):
        check_apart(tmp_path / "archive", tmp_path / "link" / "out")


def test_a_neighbour_with_a_longer_name_is_apart(tmp_path: Path) -> None:
    check_apart(tmp_path / "archive", tmp_path / "archive2")


def test_committed_files_have_their_names_and_rows(made: Destination) -> None:
    commit(made, entry("a", "1"), entry("b", "2", "1"))
    assert outputs(made.root) == {"1": "0", "2": "1"}
    assert made.ledger.read().num_rows == 2


def test_the_same_object_twice_is_one_output_of_two_rows(made: Destination) -> None:
    decided = commit(made, entry("a", "1"), entry("b", "1"))
    assert (len(outputs(made.root)), [one.reason for one in decided]) == (1, ["", ""])


def test_of_other_content_under_one_instance_the_first_stands(made: Destination) -> None:
    decided = commit(made, entry("a", "1", "5"), entry("b", "1", "6"))
    assert (outputs(made.root), [one.reason for one in decided]) == ({"1": "5"}, ["", CONFLICTING_OBJECT])


def test_a_conflict_is_seen_across_chunks(made: Destination) -> None:
    instances = InstanceContents(())
    commit(made, entry("a", "1", "5"), instances=instances)
    assert commit(made, entry("b", "1", "6"), instances=instances)[0].reason == CONFLICTING_OBJECT


def test_no_partial_file_is_left(made: Destination) -> None:
    commit(made, entry("a", "1", "5"), entry("b", "1", "6"))
    assert [path for path in made.root.rglob("*") if "rows" in path.name] == []


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_commit_that_died_is_finished_by_the_next_run(tmp_path: Path, renamed: int) -> None:
    made = Destination(tmp_path / "out")
    with made.locked(MADE):
        pass
    partial = tmp_path / "out" / ".radloop" / "drafts-dead"
    partial.mkdir()
    entries = [entry("a", "1"), entry("b", "2", "1")]
    for number, one in enumerate(entries):
        place = tmp_path / "out" / one.output if number < renamed else partial / partial_name(one.source_key)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(one.blake3)
    (partial / "pending.parquet").write_bytes(to_bytes(to_table(entries)))
    with made.locked(MADE):
        assert (outputs(tmp_path / "out" / "images"), made.ledger.read().num_rows) == (
            {"1": "0", "2": "1"},
            2,
        )
    assert not partial.exists()


def test_partial_files_without_rows_are_dropped_by_the_next_run(tmp_path: Path) -> None:
    made = Destination(tmp_path / "out")
    with made.locked(MADE):
        pass
    partial = tmp_path / "out" / ".radloop" / "drafts-dead"
    partial.mkdir()
    (partial / partial_name("a" * 32)).write_text("half")
    with made.locked(MADE):
        assert (outputs(tmp_path / "out"), partial.exists()) == ({}, False)


def test_sweeping_removes_what_has_no_source(made: Destination) -> None:
    commit(made, entry("a", "1"), entry("b", "2", "1"))
    made.sweep(made.ledger.read().slice(0, 1))
    assert outputs(made.root) == {"2": "1"}
    assert latest(made.ledger.read())["reason"].to_pylist() == ["", REMOVED]


def test_sweeping_keeps_an_output_that_another_source_has_too(made: Destination) -> None:
    commit(made, entry("a", "1"), entry("b", "1"))
    made.sweep(made.ledger.read().slice(0, 1))
    assert outputs(made.root) == {"1": "0"}


def test_sweeping_removes_the_output_that_a_changed_source_had(made: Destination) -> None:
    commit(made, entry("a", "1"))
    commit(made, entry("a", "2"))
    made.sweep(NOTHING)
    assert outputs(made.root) == {"2": "0"}


def test_sweeping_leaves_no_empty_folder(made: Destination) -> None:
    commit(made, entry("a", "1"))
    made.sweep(made.ledger.read())
    assert list((made.root / "images").iterdir()) == []


def test_a_sweep_that_died_after_its_tombstones_is_done_again(made: Destination, tmp_path: Path) -> None:
    commit(made, entry("a", "1"))
    kept = tmp_path / "kept"
    shutil.copytree(made.root / "images", kept)
    made.ledger.store.write("rows", to_bytes(to_table([entry("a", reason=REMOVED)])))
    made.ledger.add("rows")
    made.sweep(NOTHING)
    assert outputs(made.root / "images") == {}
    assert outputs(kept) == {"1": "0"}


def test_sweeping_where_nothing_has_changed_writes_nothing(made: Destination) -> None:
    commit(made, entry("a", "1"))
    before = {path: path.stat().st_mtime_ns for path in made.root.rglob("*")}
    made.sweep(NOTHING)
    assert {path: path.stat().st_mtime_ns for path in made.root.rglob("*")} == before


def test_many_parts_become_one(made: Destination) -> None:
    for number in range(17):
        commit(made, replace(entry("a", str(number)), source_key=f"{number:032d}"))
    before = made.ledger.read()
    made.sweep(NOTHING)
    assert (len(made.ledger.parts()), made.ledger.read().equals(pa.table(before))) == (1, True)


def test_a_folder_that_cannot_be_made_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / ".radloop").write_text("in the way")
    with (
        pytest.raises(EnvironmentFault, match="cannot make the destination"),
        Destination(tmp_path).locked(MADE),
    ):
        pass


@pytest.mark.slow
def test_a_night_that_dies_before_any_step_is_finished_by_the_next_one(tmp_path: Path) -> None:
    start = tmp_path / "start"
    with Destination(start).locked(MADE):
        commit(Destination(start), *BEFORE)
    seen = outputs(start)
    subprocess.run(
        [sys.executable, "-m", "tests.destination_nights", str(tmp_path)],
        check=True,
        timeout=120,
        cwd=REPOSITORY,
    )
    *finished, whole = sorted(tmp_path.glob("[0-9][0-9][0-9]"))
    assert outputs(whole) == {"1": "0", "3": "2", "4": "3"}
    assert len(finished) > 12
    rows = latest(Destination(whole).ledger.read()).sort_by("source_key")
    for root in finished:
        visible = outputs(Path(f"{root}-died") / "images")
        assert visible.items() <= (seen | outputs(whole)).items(), f"died before step {root.name}"
        assert outputs(root) == outputs(whole), f"died before step {root.name}"
        assert latest(Destination(root).ledger.read()).sort_by("source_key").equals(rows)
        assert list(root.glob(".radloop/drafts-*")) == []
