"""Identifier search: files that a night leaves are searched for identifiers, and one hit stops it."""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.leaks import ours
from bench.objects import SYNTAXES, leaked, lost, planted
from imaging.deidentify.identity.identifiers import Identifier
from imaging.deidentify.proof.leak_search import (
    LeakReport,
    draw_sample,
    identifiers_of_name,
    sample_identifiers,
    search_files,
)
from imaging.errors import EnvironmentFault
from imaging.sources.folder_source import FolderSource
from imaging.sources.medmnist_file import MedMnistFile
from imaging.sources.protocol import SourceFile
from services.flow_requests import IngestRequest
from services.settings import Settings
from tasks.identifier_search import left_since, search_identifiers
from tests.public_images import write_digits
from tests.synthetic import write_dicom

PATIENT = "PID-4815162342"
NAME = "MUSTERMANN^ERIKA"
BIRTH = "19640812"
WARD = "ward-rosengarten-7"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(3):
        changes = {"PatientID": f"{PATIENT}-{number}", "PatientName": NAME, "PatientBirthDate": BIRTH}
        write_dicom(tmp_path / "dicom" / WARD / f"IM{number}", np.full((32, 32), number), **changes)
    return tmp_path / "dicom"


def search(archive: Path, settings: Settings, took_s: float = 60) -> LeakReport:
    return search_identifiers.fn(IngestRequest(source=str(archive)), settings, took_s=took_s, seed="tonight")


def database(path: Path, text: str) -> None:
    with sqlite3.connect(path) as open_database:
        open_database.execute("CREATE TABLE params (key TEXT, value TEXT)")
        open_database.execute("INSERT INTO params VALUES ('source', ?)", [text])
    open_database.close()


LEFT: dict[str, Callable[[Path, str], object]] = {
    "store/datasets/ct/manifest.parquet": lambda path, text: pq.write_table(pa.table({"a": [text]}), path),
    "store/shards/one.npy": lambda path, text: path.write_bytes(b"\0" * 5000 + text.encode("utf-16-le")),
    "store/reports/page.html": lambda path, text: path.write_text(f"<p>{text}</p>"),
    "mlflow.db": database,
    "prefect/logs/flow.log": lambda path, text: path.write_text(f"12:00 | {text} read\n"),
    "mlartifacts/1/it.json": lambda path, text: path.write_text(json.dumps({"a": text})),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("text", [f"{PATIENT}-1", "Mustermann, Erika"])
def test_an_identifier_stops_the_night_wherever_it_was_left(
    archive: Path, settings: Settings, name: str, text: str
) -> None:
    path = settings.folder / name
    path.parent.mkdir(parents=True) if not path.parent.exists() else None
    LEFT[name](path, text)
    with pytest.raises(EnvironmentFault, match="identifies a patient") as caught:
        search(archive, settings)
    assert Path(name).name in str(caught.value)
    assert text not in str(caught.value)


@pytest.mark.slow
def test_a_night_without_hits_goes_on_and_reports_what_was_searched(
    archive: Path, settings: Settings
) -> None:
    for name, write in LEFT.items():
        (settings.folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(settings.folder / name, "0f3c9a, 4 images of 3 patients, 2026-01-01")
    result = search(archive, settings)
    assert (result.files, result.left_out, result.hits) == (len(LEFT), 0, ())
    assert result.identifiers >= 8


@pytest.mark.slow
def test_a_file_named_after_a_patient_stops_the_night_unnamed(archive: Path, settings: Settings) -> None:
    settings.folder.mkdir()
    (settings.folder / f"{PATIENT}-0.json").write_text("{}")
    with pytest.raises(EnvironmentFault, match="in the name of a file") as caught:
        search(archive, settings)
    assert PATIENT not in str(caught.value)


def paths_left(archive: Path, settings: Settings, since_s: float = 0) -> set[str]:
    left = left_since(since_s, IngestRequest(source=str(archive)), settings)
    return {path.relative_to(settings.folder).as_posix() for path in left}


def touch(settings: Settings, *names: str) -> None:
    for name in names:
        (settings.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (settings.folder / name).touch()


def test_private_lists_and_copies_of_what_is_searched_elsewhere_are_left_out(
    archive: Path, settings: Settings
) -> None:
    touch(settings, "private/problems-ct.csv", "store/a", "cache/bucket/shards/fetched-again.npy")
    assert paths_left(archive, settings) == {"store/a"}


def test_a_source_inside_the_home_is_no_leak(settings: Settings) -> None:
    touch(settings, "archive/dicom/IM1", "archive/masks/1.2.3.npy", "store/a")
    assert paths_left(settings.folder / "archive" / "dicom", settings) == {"store/a"}


def test_what_stood_before_the_night_was_searched_before(archive: Path, settings: Settings) -> None:
    touch(settings, "store/old", "store/new")
    os.utime(settings.folder / "store" / "old", (1e9, 1e9))
    assert paths_left(archive, settings, time.time() - 60) == {"store/new"}


def test_a_store_elsewhere_is_searched_too(
    archive: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADLOOP_STORE", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / "shards").mkdir(parents=True)
    (tmp_path / "elsewhere" / "shards" / "a.npy").touch()
    left = left_since(0, IngestRequest(source=str(archive)), Settings())
    assert [path.name for path in left] == ["a.npy"]


@pytest.mark.slow
def test_the_sample_has_identifiers_and_file_names(archive: Path) -> None:
    sampled = {(one.kind, one.value) for one in sample_identifiers(FolderSource(archive), "seed")}
    assert {("name", NAME), ("id", f"{PATIENT}-0"), ("id", WARD)} <= sampled


def test_the_sample_is_drawn_by_its_seed() -> None:
    files = [SourceFile(name=str(number), size_bytes=1, mtime_ns=1) for number in range(100)]
    once, again, other = (draw_sample(iter(files), seed, 5) for seed in ("a", "a", "b"))
    assert once == again != other
    assert len(set(once)) == 5
    assert {file.name for seed in range(200) for file in draw_sample(iter(files), str(seed), 5)} == {
        f.name for f in files
    }


def test_rows_of_a_benchmark_identify_nobody(tmp_path: Path) -> None:
    assert sample_identifiers(MedMnistFile(write_digits(tmp_path / "digits.npz")), "seed") == ()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("IM00012", []),
        ("2026/IM1", []),
        ("train/image.png", []),
        ("MEYER_ANNA_1962/IM1", ["MEYER_ANNA_1962/IM1", "MEYER_ANNA_1962"]),
    ],
)
def test_of_a_file_name_counts_what_may_be_somebodys(name: str, parts: list[str]) -> None:
    assert [one.value for one in identifiers_of_name(name)] == parts


def test_a_date_alone_stops_no_night(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("made on 2026-01-31")
    day = Identifier("date", "20260131", 0x00080020)
    assert search_files([tmp_path / "report.html"], [day], tmp_path, "seed").hits == ()


@pytest.mark.parametrize(
    ("text", "is_hit"),
    [
        ("born 1964-08-12, female", True),
        ("born on 12.08.1964.", True),
        ("12 Aug 1964", True),
        ("scan_19640812.nii", True),
        ("1964-08-12T10:15:00", True),
        ("a19640812b77", False),
        ("19640812-1c2e-4a5b-8d6f-0123456789ab", False),
        ("119640812", False),
        ("version 12.8.64", False),
    ],
)
def test_a_day_of_before_any_run_is_looked_for(tmp_path: Path, text: str, is_hit: bool) -> None:
    (tmp_path / "flow.log").write_text(text)
    day = Identifier("date", BIRTH, 0x00100030)
    assert bool(search_files([tmp_path / "flow.log"], [day], tmp_path, "seed").hits) == is_hit


def test_the_day_that_stands_for_an_unknown_one_stops_no_night(tmp_path: Path) -> None:
    (tmp_path / "flow.log").write_text("last seen 1970-01-01")
    day = Identifier("date", "19700101", 0x00100030)
    assert search_files([tmp_path / "flow.log"], [day], tmp_path, "seed").hits == ()


def test_a_folder_named_after_a_patient_is_a_hit(tmp_path: Path) -> None:
    (tmp_path / PATIENT).mkdir()
    (tmp_path / PATIENT / "a.json").write_text("{}")
    result = search_files([tmp_path / PATIENT / "a.json"], [Identifier("id", PATIENT, 1)], tmp_path, "seed")
    assert {hit.where for hit in result.hits} == {"name"}


def test_what_is_beyond_the_budget_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.deidentify.proof.leak_search.BUDGET_BYTES", 25)
    for number in range(5):
        (tmp_path / f"{number}.npy").write_bytes(b"\0" * 10)
    result = search_files(tmp_path.iterdir(), [Identifier("id", PATIENT, 1)], tmp_path, "seed")
    assert (result.files, result.left_out) == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_sentinel_of_any_row_at_any_depth_survives(syntax: str) -> None:
    one = planted(syntax)
    output = ours(one.data)
    assert {sentinel.row for sentinel in leaked(output, one.sentinels)} == set()
    assert lost(one.data, output) == []


@pytest.mark.slow
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_each_sentinel_would_be_seen(syntax: str) -> None:
    one = planted(syntax)
    assert len(leaked(one.data, one.sentinels)) == len(one.sentinels) > 2600
