"""Loading: a command loads what it uses, and nothing that reads the environment before it was set."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from imaging.store.folder_store import FolderStore
from tests.synthetic import version_of, write_archive

ORCHESTRATION = {"prefect"}
TABLES = {"numpy", "pyarrow"}
IMAGES = {"numpy", "pydicom"}
MLFLOW = {"mlflow", "pandas", "scipy"}


@dataclass(frozen=True)
class Loaded:
    """What a command has loaded, and how it ended."""

    code: int
    loaded: frozenset[str]
    too_early: list[str]
    text: str


@dataclass(frozen=True)
class Place:
    """A home with a dataset, and an archive."""

    home: Path
    archive: Path
    labels: Path

    def run(self, *arguments: str, **environment: str) -> Loaded:
        given = [argument.format(archive=self.archive, labels=self.labels) for argument in arguments]
        done = subprocess.run(
            [sys.executable, "-m", "tests.loading_process", "--home", str(self.home), *given],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        report = json.loads(done.stderr.splitlines()[-1])
        return Loaded(
            report["code"], frozenset(report["loaded"]), report["too_early"], done.stdout + done.stderr
        )


def write_registry(home: Path) -> None:
    """Write the tables of MLflow's database that are read without MLflow, with a champion of `d`."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE registered_models (name)")
        database.execute("CREATE TABLE model_version_tags (name, version, key, value)")
        database.execute("CREATE TABLE registered_model_aliases (name, alias, version)")
        database.execute("CREATE TABLE model_versions (name, version, current_stage)")
        database.execute("INSERT INTO registered_models VALUES ('d')")
        database.execute("INSERT INTO registered_model_aliases VALUES ('d', 'champion', 1)")
        database.execute("INSERT INTO model_versions VALUES ('d', 1, 'None')")


@pytest.fixture
def place(tmp_path: Path, environment: None) -> Place:
    version_of(FolderStore(tmp_path / "home" / "store"))
    write_registry(tmp_path / "home")
    return Place(tmp_path / "home", *write_archive(tmp_path / "archive", 8))


SOURCE = ("--source", "{archive}", "--labels", "{labels}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "loads"),
    [
        (("--help",), 0, set()),
        (("run", "--help"), 0, set()),
        (("deidentify", "--help"), 0, set()),
        (("status",), 0, set()),
        (("inspect", "{archive}"), 0, TABLES | IMAGES),
        (("dataset", "list"), 0, TABLES),
        (("dataset", "show", "d"), 0, TABLES),
        (("run", "--source", "nowhere"), 2, TABLES | IMAGES),
        (("ingest", *SOURCE, "--modality", "XY"), 2, TABLES | IMAGES),
        (("train", "--network", "vgg"), 2, TABLES | IMAGES),
        (("evaluate", "--version", "0"), 2, TABLES | IMAGES),
        (("deidentify", "nowhere", "out"), 2, TABLES | IMAGES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_command_without_a_flow_loads_no_server(
    place: Place, command: tuple[str, ...], code: int, loads: set[str]
) -> None:
    ended = place.run(*command)
    assert (ended.code, ended.loaded - loads) == (code, set()), ended.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "loads"),
    [
        (("ingest", *SOURCE), set()),
        (("deidentify", "{archive}", "{archive}-out"), set()),
        (("train", "--name", "d"), MLFLOW),
        (("evaluate", "--name", "d"), MLFLOW),
        (("reevaluate", "--name", "d"), MLFLOW),
        (("run", *SOURCE), MLFLOW | {"matplotlib"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_flow_loads_what_it_uses_after_the_environment_was_set(
    place: Place, command: tuple[str, ...], loads: set[str]
) -> None:
    ended = place.run(*command)
    assert "error: loaded" in ended.text
    assert (ended.loaded - (ORCHESTRATION | TABLES | IMAGES | loads), ended.too_early) == (set(), []), (
        ended.text
    )


@pytest.mark.slow
def test_an_ingest_with_nothing_new_loads_no_library_of_trainings(place: Place) -> None:
    command = ("ingest", *SOURCE, "--name", "chest")
    assert place.run(*command, RUNS="1").code == 0
    again = place.run(*command, RUNS="1")
    assert "unchanged, nothing written" in " ".join(again.text.split())
    assert again.loaded <= ORCHESTRATION | TABLES | IMAGES, again.text


def test_arrow_does_without_pandas_until_it_is_asked_for() -> None:
    code = """
import sys
import pyarrow as pa
from imaging.dataset.tables.arrow_without_pandas import look_without_pandas
look_without_pandas()
table = pa.table({"a": pa.array([1, 2])})
assert "pandas" not in sys.modules
frame = table.to_pandas()
assert pa.array(frame["a"]).to_pylist() == [1, 2]
assert pa.table(frame).num_rows == pa.Table.from_pandas(frame).num_rows == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)
