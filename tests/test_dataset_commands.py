"""Commands `radloop dataset ...`: what a person reads, what a program reads, and how they end."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer

from cli.main import app, main
from imaging.dataset.split.fingerprint import fingerprints
from imaging.dataset.split.test_lock import count_reads
from imaging.dataset.tables.shard import shard_name, write_shard
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.head import head_name
from imaging.dataset.version.publish import publish
from imaging.store.folder_store import FolderStore
from tests.synthetic import built, closed_port, example, recipe, refusal, version_of

COMMANDS = ("list", "show", "diff", "check", "verify", "gc", "export")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed on standard output and beside it."""

    code: int
    out: str
    rest: str

    @property
    def parsed(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return " ".join((self.out + self.rest).split())


Radloop = Callable[..., CommandResult]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "home" / "store")


@pytest.fixture
def radloop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], environment: None
) -> Radloop:
    """Run `radloop dataset ...` in this process."""

    def run(*arguments: str | Path) -> CommandResult:
        command = ["radloop", "--home", str(tmp_path / "home"), "dataset", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return CommandResult(int(ended.value.code or 0), printed.out, printed.err)

    return run


def two_versions(store: FolderStore, **changes: Any) -> tuple[DatasetVersion, DatasetVersion]:
    """Publish the versions of two nights, of nine patients and of twelve; `changes` are of the first patient then."""
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16), np.uint8)
    shard, prints = write_shard(store, images), fingerprints(images)
    rows = [
        example(
            n,
            shard=shard,
            row=n,
            fingerprint=prints[n].tobytes(),
            source_label="ab"[n // 3 % 2],
            source_split=SPLITS[n % 3],
            site_key=f"{n % 2}" * 32,
        )
        for n in range(12)
    ]
    old = built(store, rows[:9], by=recipe(dataset="ct"))
    new = built(store, [{**rows[0], **changes}, *rows[1:]], [refusal(50)], by=recipe(dataset="ct"))
    for version, before, seconds in ((old, None, 1), (new, old.digest, 2)):
        assert publish(version, before)
        os.utime(store.path(head_name("ct", version.digest)), (seconds * 86400, seconds * 86400))
    return old, new


def test_every_command_is_there() -> None:
    group: Any = typer.main.get_command(app).commands["dataset"]  # type: ignore[attr-defined]
    assert tuple(group.commands) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_to_programs(radloop: Radloop, name: str) -> None:
    assert "--json" in radloop(name, "--help").out


@pytest.mark.parametrize("name", ["show", "check", "verify", "gc", "list", "diff", "export"])
def test_json_stands_alone_on_standard_output(
    radloop: Radloop, store: FolderStore, tmp_path: Path, name: str
) -> None:
    two_versions(store)
    arguments = {"gc": (), "list": (), "diff": ("ct", "ct"), "export": ("ct", tmp_path / "out")}
    result = radloop(name, *arguments.get(name, ("ct",)), "--json")
    assert (result.code, result.rest) == (0, "")
    assert result.parsed


def test_nothing_is_listed_in_an_empty_store(radloop: Radloop) -> None:
    assert "There is no dataset yet" in radloop("list").text
    assert radloop("list", "--json").parsed == []


def test_versions_are_listed_with_their_counts(radloop: Radloop, store: FolderStore) -> None:
    old, new = two_versions(store)
    version_of(store, name="mr")
    versions = radloop("list", "ct", "--json").parsed
    assert [(one["digest"], one["examples"], one["patients"], one["current"]) for one in versions] == [
        (new.digest, 12, 12, True),
        (old.digest, 9, 9, False),
    ]
    assert f"{new.digest[:12]} 1970-01-03 00:00 12 12 4 4 4 1 current" in radloop("list").text


def test_an_unknown_dataset_is_refused_with_the_known_ones(radloop: Radloop, store: FolderStore) -> None:
    two_versions(store)
    for command in (
        ("list", "pet"),
        ("show", "pet"),
        ("check", "pet"),
        ("verify", "pet"),
        ("export", "pet", "out"),
    ):
        result = radloop(*command)
        assert (result.code, "error: there is no dataset 'pet': there are 'ct'" in result.text) == (2, True)


def test_a_damaged_version_does_not_stop_the_list(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store)
    store.write(head_name("ct", old.digest), b'{"format": 1}')
    result = radloop("list")
    assert (result.code, "is damaged" in result.text, "12 12 4 4 4 1 current" in result.text) == (
        0,
        True,
        True,
    )


def test_a_version_is_shown_to_a_person(radloop: Radloop, store: FolderStore) -> None:
    _, new = two_versions(store)
    text = radloop("show", "ct").text
    for expected in (
        f"ct {new.digest}: 12 images of 12 patients",
        "truncated 1",
        "the test patients were read 0 times",
        "size_px 16",
        "000000000000 6 6",
        "spacing_mm images 0.5 12",
        "label x split split images patients a test 2 2",
        "█",
    ):
        assert expected in text, expected


def test_a_version_is_shown_to_a_program(radloop: Radloop, store: FolderStore) -> None:
    two_versions(store)
    summary = radloop("show", "ct", "--json").parsed
    assert summary["counts"]["label"] == {
        "a": {"examples": 6, "patients": 6},
        "b": {"examples": 6, "patients": 6},
    }
    assert summary["numbers"]["spacing_mm"] == {"bins": [[0.5, 0.5, 12]], "missing": 0}


def test_an_older_version_is_shown_by_its_first_digits(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store)
    assert radloop("show", "ct", old.digest[:6], "--json").parsed["examples"] == 9
    assert radloop("show", f"ct@{old.digest[:6]}", "--json").parsed["examples"] == 9


def test_what_was_added_is_reported(radloop: Radloop, store: FolderStore) -> None:
    old, new = two_versions(store)
    result = radloop("diff", old.digest[:8], "ct", "--first", "2")
    assert (result.code, "9 images are the same added 3 (i10, i11, ...) removed 0" in result.text) == (
        0,
        True,
    )
    assert radloop("diff", old.digest, new.digest, "--json").parsed["added"]["count"] == 3


def test_a_changed_split_is_an_alarm_and_ends_with_1(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store, source_split="test")
    result = radloop("diff", old.digest, "ct")
    assert (result.code, result.text.startswith("NEVER TO CHANGE, AND CHANGED: the split of 1 (i0)")) == (
        1,
        True,
    )


def test_sites_are_shown_by_the_beginning_of_a_pseudonym(radloop: Radloop, store: FolderStore) -> None:
    two_versions(store, site_key="5e" * 16)
    sites = radloop("show", "ct", "--json").parsed["counts"]["site"]
    assert {name[:4]: count["examples"] for name, count in sites.items()} == {"1111": 6, "0000": 5, "5e5e": 1}
    text = radloop("show", "ct").text
    assert "site (pseudonym) images patients 111111111111 6 6" in text
    assert "5e5e5e5e5e5e 1 1" in text


def test_what_is_changed_is_counted_by_column(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store, model="other")
    assert "changed in both: model of 1" in radloop("diff", old.digest, "ct").text


def test_ignored_files_are_no_refused_ones(radloop: Radloop, store: FolderStore) -> None:
    version = built(store, [example(0)], [refusal(1, "dicomdir"), refusal(2)], by=recipe(dataset="x"))
    assert publish(version, None)
    assert "1 file refused, 0 of them in conflict, and 1 ignored" in radloop("show", "x").text


def test_a_changed_label_is_reported(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store, source_label="b")
    result = radloop("diff", old.digest, "ct")
    assert (result.code, "Another label than before: 1 (i0)" in result.text) == (0, True)


def test_a_sound_version_passes_its_check(radloop: Radloop, store: FolderStore) -> None:
    two_versions(store)
    result = radloop("check", "ct")
    assert result.code == 0
    assert "no overlap of splits in ct" in result.text
    assert "it can be trained on" in result.text


def test_an_overlap_of_splits_is_named_and_ends_with_1(radloop: Radloop, store: FolderStore) -> None:
    two_versions(store, patient_key="p1")
    result = radloop("check", "ct")
    assert result.code == 1
    assert result.text.startswith("OVERLAP of splits in ct") and "1 patient in two splits" in result.text
    overlaps = radloop("check", "ct", "--json").parsed
    assert (overlaps["patients_on_two_sides"], overlaps["near_duplicates"]) == (1, 0)
    assert {overlaps["leaks"][0]["split"], overlaps["leaks"][0]["other_split"]} == {"train", "val"}


def test_near_duplicates_are_counted_apart(radloop: Radloop, store: FolderStore) -> None:
    _, new = two_versions(store)
    second = new.table("examples").filter(new.table("examples")["instance_key"].to_numpy() == "i1")
    print_of = second["fingerprint"][0].as_py()
    rows = new.table("examples", [*example(0)]).to_pylist()
    rows[0]["fingerprint"] = print_of
    assert publish(built(store, rows, by=recipe(dataset="ct")), new.digest)
    overlaps = radloop("check", "ct", "--json").parsed
    assert (overlaps["patients_on_two_sides"], overlaps["near_duplicates"]) == (0, 1)


def test_a_version_that_nothing_can_be_trained_on_ends_with_1(radloop: Radloop, store: FolderStore) -> None:
    publish(built(store, [example(0)]), None)
    result = radloop("check", "d")
    assert (result.code, "not to be trained on: dataset 'd' has no label at all" in result.text) == (1, True)


def test_a_whole_version_is_verified(radloop: Radloop, store: FolderStore) -> None:
    two_versions(store)
    result = radloop("verify", "ct")
    assert (result.code, "is whole: 3 objects" in result.text) == (0, True)


def test_what_is_damaged_is_named_with_the_remedy_and_ends_with_1(
    radloop: Radloop, store: FolderStore
) -> None:
    _, new = two_versions(store)
    name = shard_name(new.table("examples")["shard"][0].as_py())
    store.write(name, b"other")
    result = radloop("verify", "ct")
    assert (result.code, f"{name} is not what was stored" in result.text) == (1, True)
    assert "Restore these from a copy" in result.text
    assert radloop("verify", "ct", "--json").parsed["flaws"] == [
        {"name": name, "what": "is not what was stored"}
    ]


def test_nothing_is_collected_unless_it_is_asked_for(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store)
    result = radloop("gc", "--keep", "1", "--grace-hours", "0")
    assert (result.code, f"version ct {old.digest[:12]}" in result.text, "to be removed" in result.text) == (
        0,
        True,
        True,
    )
    assert store.exists(head_name("ct", old.digest))


def test_what_is_asked_for_is_collected(radloop: Radloop, store: FolderStore) -> None:
    old, new = two_versions(store)
    garbage = radloop("gc", "--keep", "1", "--grace-hours", "0", "--yes", "--json").parsed
    assert ([one["digest"] for one in garbage["versions"]], garbage["removed"]) == ([old.digest], True)
    assert not store.exists(head_name("ct", old.digest))
    assert radloop("verify", "ct").code == 0
    assert [one["digest"] for one in garbage["kept"]] == [new.digest]


def test_nothing_of_the_last_day_is_collected(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store)
    os.utime(store.path(head_name("ct", old.digest)))
    assert radloop("gc", "--keep", "1", "--json").parsed["versions"] == []


def test_a_pinned_version_is_not_collected(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store)
    command = ("gc", "--keep", "1", "--grace-hours", "0", "--json")
    assert radloop(*command, "--pin", old.digest[:12]).parsed["versions"] == []
    assert len(radloop(*command).parsed["versions"]) == 1


def test_a_version_that_mlflow_names_is_not_collected(
    radloop: Radloop, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = two_versions(store)
    monkeypatch.setattr("cli.dataset.named_by_mlflow", lambda _: frozenset([old.digest]))
    assert radloop("gc", "--keep", "1", "--grace-hours", "0", "--yes", "--json").parsed["versions"] == []
    assert radloop("verify", f"ct@{old.digest}").code == 0


@pytest.mark.slow
def test_nothing_is_collected_where_mlflow_does_not_answer(radloop: Radloop, store: FolderStore) -> None:
    old, _ = two_versions(store)
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{closed_port()}"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    result = radloop("gc", "--keep", "1", "--grace-hours", "0", "--yes")
    assert (result.code, "does not answer" in result.text) == (2, True)
    assert store.exists(head_name("ct", old.digest))


def test_partial_files_of_dead_processes_are_removed(radloop: Radloop, store: FolderStore) -> None:
    two_versions(store)
    partial = store.root / "shards" / ".draft-dead"
    partial.write_text("half")
    os.utime(partial, (0, 0))
    assert radloop("gc", "--json").parsed["drafts"] == 0
    assert partial.exists()
    assert radloop("gc", "--yes", "--json").parsed["drafts"] == 1
    assert not partial.exists()


def test_an_export_has_no_test_patients(radloop: Radloop, store: FolderStore, tmp_path: Path) -> None:
    two_versions(store)
    assert radloop("export", "ct", tmp_path / "out").code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("train.npy", "train.parquet", "val.npy", "val.parquet", "dataset.json")
    }
    assert count_reads(store, "ct") == 0


def test_test_patients_are_exported_where_they_are_asked_for_and_counted(
    radloop: Radloop, store: FolderStore, tmp_path: Path
) -> None:
    two_versions(store)
    result = radloop("export", "ct", tmp_path / "out", "--split", "test", "--with-test", "--json")
    assert (result.parsed["examples"], count_reads(store, "ct")) == ({"test": 4}, 1)
    assert pq.read_table(tmp_path / "out" / "test.parquet").num_rows == len(
        np.load(tmp_path / "out" / "test.npy")
    )


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", "the patients of split 'test' are locked away"),
        ("holdout", "no split holdout: name some of train"),
    ],
)
def test_other_splits_are_refused_with_the_remedy(
    radloop: Radloop, store: FolderStore, tmp_path: Path, split: str, message: str
) -> None:
    two_versions(store)
    result = radloop("export", "ct", tmp_path / "out", "--split", split)
    assert (result.code, message in result.text, (tmp_path / "out").exists()) == (2, True, False)


def test_an_export_of_an_older_version(radloop: Radloop, store: FolderStore, tmp_path: Path) -> None:
    old, _ = two_versions(store)
    result = radloop("export", f"ct@{old.digest[:8]}", tmp_path / "out", "--json")
    assert result.parsed["examples"] == {"train": 3, "val": 3}
