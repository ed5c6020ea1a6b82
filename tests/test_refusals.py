"""Refusals: what cannot succeed is refused before Prefect, Ray or MLflow load, and leaves no process and no file."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from cli.main import main
from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms
from imaging.store.folder_store import FolderStore
from services import input_checks, preflight
from services.mlflow.registry_peek import Champion
from services.preflight import check_room
from tests.small_disks import small_disk
from tests.synthetic import version_of, write_archive

KEY, OTHER_KEY = "5e" * 32, "6f" * 32


@dataclass(frozen=True)
class Refused:
    """How a command ended, and what it printed."""

    code: int
    text: str


Radloop = Callable[..., Refused]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_archive(tmp_path_factory.mktemp("archive") / "dicom", 8)


@pytest.fixture
def radloop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], environment: None
) -> Radloop:
    """Run a command in this process; a flow must not be loaded."""

    def loaded(name: str) -> None:
        raise AssertionError(f"the flow {name} was loaded")

    monkeypatch.setattr("cli.flow_run.load_flow", loaded)

    def run(*arguments: str | Path) -> Refused:
        monkeypatch.setattr(sys, "argv", ["radloop", "--home", str(tmp_path / "home"), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return Refused(int(ended.value.code or 0), " ".join((printed.out + printed.err).split()))

    return run


@pytest.fixture
def dataset(tmp_path: Path) -> FolderStore:
    """Publish a dataset `chest` that was made with KEY."""
    store = FolderStore(tmp_path / "home" / "store")
    version_of(store, name="chest", key_fingerprint=Pseudonyms(bytes.fromhex(KEY)).fingerprint)
    return store


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


WRONG = {
    "positive: tumour": "'tumour' is not among the labels ['contrast', 'plain']",
    "label_column: grade": "no 'grade': give --label-column one of them",
    "preprocess: {modality: XY}": "modality is 'XY': give one of",
    "dataset: Chest CT": "String should match pattern",
    "splits: {train: 2}": "splits.train",
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("command", ["run", "ingest", "reevaluate"])
def test_what_is_wrong_in_a_request_is_refused_early(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path, command: str, fault: str
) -> None:
    config = tmp_path / "radloop.yaml"
    config.write_text(fault)
    ended = radloop(command, "--source", archive[0], "--labels", archive[1], "--config", config)
    assert (ended.code, WRONG[fault] in ended.text) == (2, True), ended.text
    assert everything_below(tmp_path) == {config}


def test_a_label_that_stands_for_none_cannot_be_looked_for(
    radloop: Radloop, archive: tuple[Path, Path]
) -> None:
    options = ("--positive", "plain", "--missing", "plain")
    ended = radloop("run", "--source", archive[0], "--labels", archive[1], *options)
    assert "'plain' is not among the labels ['contrast']" in ended.text


def test_a_label_of_an_npz_file_is_looked_for_too(radloop: Radloop, tmp_path: Path) -> None:
    images = {f"{part}_images": np.zeros((2, 8, 8), np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.array([[0], [1]], np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "rows.npz", **images, **labels)
    ended = radloop("run", "--source", tmp_path / "rows.npz", "--positive", "2")
    assert "'2' is not among the labels ['0', '1']" in ended.text


@pytest.mark.parametrize("key", ["", "abc", KEY[:-1], KEY[:-1] + "g", KEY + "00"])
@pytest.mark.parametrize("command", ["run", "ingest", "deidentify"])
def test_a_key_of_another_form_is_refused(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path, command: str, key: str
) -> None:
    os.environ["RADLOOP_KEY"] = key
    places = (
        (archive[0], tmp_path / "out")
        if command == "deidentify"
        else ("--source", archive[0], "--labels", archive[1])
    )
    ended = radloop(command, *places)
    assert (ended.code, f"has {len(key)} characters and must be 64 hex digits" in ended.text) == (2, True), (
        ended.text
    )
    assert everything_below(tmp_path) == set()


def test_a_key_that_is_not_the_datasets_is_refused(
    radloop: Radloop, archive: tuple[Path, Path], dataset: FolderStore
) -> None:
    os.environ["RADLOOP_KEY"] = OTHER_KEY
    ended = radloop("ingest", "--source", archive[0], "--labels", archive[1], "--name", "chest")
    assert "was made with the key" in ended.text
    assert "restore the key file" in ended.text


def test_a_key_that_is_gone_is_not_replaced(
    radloop: Radloop, archive: tuple[Path, Path], dataset: FolderStore, tmp_path: Path
) -> None:
    ended = radloop("ingest", "--source", archive[0], "--labels", archive[1], "--name", "chest")
    assert "restore the key file" in ended.text
    assert not (tmp_path / "home" / "private").exists()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("train", "--name", "brain"), "there is no dataset 'brain'"),
        (("evaluate", "--name", "brain"), "there is no dataset 'brain'"),
        (("reevaluate", "--name", "brain"), "there is no dataset 'brain'"),
        (("evaluate", "--name", "chest"), "has no model 'chest': run `radloop train` first"),
        (("reevaluate", "--name", "chest"), "model 'chest' has no champion yet"),
        (("train", "--name", "chest", "--network", "vgg"), "got 'vgg'"),
        (("evaluate", "--name", "chest", "--version", "0"), "greater than or equal to 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_refused_early(
    radloop: Radloop, dataset: FolderStore, tmp_path: Path, command: tuple[str, ...], text: str
) -> None:
    before = everything_below(tmp_path)
    ended = radloop(*command)
    assert (ended.code, text in ended.text) == (2, True), ended.text
    assert everything_below(tmp_path) == before


def test_a_version_that_is_not_there_is_refused_with_the_known_ones(
    radloop: Radloop, dataset: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "peek_versions", lambda *_: [1, 4])
    assert (
        "has no version 3: give --version one of 1, 4"
        in radloop("evaluate", "--name", "chest", "--version", "3").text
    )


def test_a_champion_is_looked_for_by_its_model(
    radloop: Radloop, dataset: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_checks, "peek_champions", lambda _: [Champion(name="brain", version=1)])
    assert "model 'chest' has no champion yet" in radloop("reevaluate", "--name", "chest").text


def test_a_destination_with_other_files_is_refused_early(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").touch()
    assert "holds other files" in radloop("deidentify", archive[0], tmp_path / "out").text
    assert not (tmp_path / "home").exists()


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    limit = r"the home .*/disk/home has 10 MB left and a run needs 100 MB: free"
    with small_disk(tmp_path / "disk", "10m") as disk, pytest.raises(EnvironmentFault, match=limit):
        check_room(disk / "home", "the home", "give --home another folder")


def test_a_disk_that_is_read_only_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "200m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(EnvironmentFault, match=r"cannot write to the home .*/disk/home \(read-only"):
            check_room(disk / "home", "the home", "give --home another folder")


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_home_without_room_is_refused_before_a_flow_is_loaded(
    radloop: Radloop,
    archive: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
) -> None:
    version_of(FolderStore(tmp_path / "home" / "store"), name="radloop")
    monkeypatch.setattr(preflight, "ROOM_BYTES", 10**18)
    os.environ["RADLOOP_KEY"] = KEY
    given = () if command == "train" else ("--source", archive[0], "--labels", archive[1], "--name", "other")
    ended = radloop(command, *given)
    assert (ended.code, "a run needs" in ended.text, "--home" in ended.text) == (2, True, True), ended.text


@pytest.mark.slow
def test_refused_requests_leave_no_process_and_no_file(
    radloop: Radloop, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    radloop("run", "--source", archive[0], "--labels", archive[1], "--positive", "tumour")
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    for _ in range(100):
        assert (
            radloop("run", "--source", archive[0], "--labels", archive[1], "--positive", "tumour").code == 2
        )
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before
    assert everything_below(tmp_path) == set()
