"""Identifier search on servers: what a night left there is searched through their clients, within a limit."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from imaging.dataset.tables.table_files import parquet_bytes
from imaging.deidentify.proof.leak_search import LeakReport
from imaging.errors import EnvironmentFault
from imaging.store.open_store import open_store
from imaging.store.protocol import Store
from services.flow_requests import IngestRequest
from services.settings import Settings
from tasks import identifier_search_remote as remote_leaks
from tasks.identifier_search import search_identifiers
from tests.conftest import Running
from tests.servers import USER, WORD, Server, begin_at, make_bucket, s3_server
from tests.synthetic import closed_port, write_dicom

pytestmark = pytest.mark.slow
DATASET = "left"


@pytest.fixture
def elsewhere(stack: Running, settings: Settings) -> Iterator[Settings]:
    """Return settings of a home of its own, whose servers are those of the stack."""
    prefect = f"{stack.record.addresses['prefect']}/api"
    os.environ |= {"MLFLOW_TRACKING_URI": stack.record.addresses["mlflow"], "PREFECT_API_URL": prefect}
    with temporary_settings({PREFECT_API_URL: prefect}):
        yield Settings()


def archive(tmp_path: Path, patient: str) -> str:
    write_dicom(tmp_path / "dicom" / "IM1", np.zeros((32, 32)), PatientID=patient)
    return str(tmp_path / "dicom")


def search(source: str, settings: Settings) -> LeakReport:
    return search_identifiers.fn(
        IngestRequest(source=source, dataset=DATASET), settings, took_s=60, seed="tonight"
    )


def run_id(settings: Settings) -> tuple[MlflowClient, str]:
    client = MlflowClient(settings.tracking_uri)
    existing = client.get_experiment_by_name(DATASET)
    experiment = existing.experiment_id if existing else client.create_experiment(DATASET)
    return client, client.create_run(experiment).info.run_id


def as_parameter(settings: Settings, text: str) -> None:
    client, run = run_id(settings)
    client.log_param(run, "source", text)


def as_tag(settings: Settings, text: str) -> None:
    client, run = run_id(settings)
    client.set_tag(run, "note", text)


def as_file(settings: Settings, text: str) -> None:
    client, run = run_id(settings)
    client.log_text(run, f"read {text}", "notes/read.txt")


def as_name_of_a_file(settings: Settings, text: str) -> None:
    client, run = run_id(settings)
    client.log_text(run, "read", f"{text}/read.txt")


def as_version(settings: Settings, text: str) -> None:
    client, run = run_id(settings)
    if not client.search_registered_models(f"name = '{DATASET}'"):
        client.create_registered_model(DATASET)
    source = f"{client.get_run(run).info.artifact_uri}/model"
    client.create_model_version(DATASET, source, run, description=text)


def as_parameter_of_a_flow(settings: Settings, text: str) -> None:
    leave("nothing", text, "nothing")


def as_line_of_a_log(settings: Settings, text: str) -> None:
    leave(text, "nothing", "nothing")


def as_artifact(settings: Settings, text: str) -> None:
    leave("nothing", "nothing", text)


@flow(name="ingest")
def leave(line: str, parameter: str, artifact: str) -> None:
    get_run_logger().info(line)
    create_markdown_artifact(artifact, key="left")
    APILogHandler().flush()


WAYS = (
    as_parameter,
    as_tag,
    as_file,
    as_name_of_a_file,
    as_version,
    as_parameter_of_a_flow,
    as_line_of_a_log,
)


@pytest.mark.parametrize("number", range(len(WAYS) + 1))
def test_an_identifier_on_a_server_stops_the_night(tmp_path: Path, elsewhere: Settings, number: int) -> None:
    ways: tuple[Callable[[Settings, str], None], ...] = (*WAYS, as_artifact)
    patient = f"PID-48151623-{number}"
    ways[number](elsewhere, f"{patient} read")
    with pytest.raises(EnvironmentFault, match="identifies a patient") as caught:
        search(archive(tmp_path, patient), elsewhere)
    assert patient not in str(caught.value)


def test_a_night_that_left_nothing_there_goes_on(tmp_path: Path, elsewhere: Settings) -> None:
    result = search(archive(tmp_path, "PID-90210777-0"), elsewhere)
    assert result.files >= 6
    assert (result.hits, result.left_out) == ((), 0)
    assert list(elsewhere.private.iterdir()) == []


def test_what_there_was_no_time_for_is_counted(
    tmp_path: Path, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_leaks, "LIMIT_S", 0)
    assert search(archive(tmp_path, "PID-90210777-1"), elsewhere).left_out == 1


def test_a_server_that_does_not_answer_stops_the_night(tmp_path: Path, elsewhere: Settings) -> None:
    os.environ["PREFECT_API_URL"] = address = f"http://127.0.0.1:{closed_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(EnvironmentFault, match="cannot be searched"),
    ):
        search(archive(tmp_path, "PID-90210777-2"), Settings())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(server: Server, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return the store of a home on S3 as another machine has it, on which the night has written."""
    begin_at(monkeypatch, server, tmp_path)
    make_bucket("leaks")
    os.environ["RADLOOP_STORE"] = f"s3://leaks/{tmp_path.name}"
    return open_store(os.environ["RADLOOP_STORE"], tmp_path / "elsewhere")


NAMES = [
    "datasets/left/versions/ab.json",
    "manifests/ab/" + 64 * "a",
    "shards/of-one.npy",
    "datasets/left/journal/k/c.examples.parquet",
]


def content(name: str, text: str) -> bytes:
    if name.endswith(".parquet"):
        return bytes(parquet_bytes(pa.table({"a": [text]})))
    return b"\0" * 5000 + text.encode("utf-16-le") if name.endswith(".npy") else text.encode()


@pytest.mark.parametrize("name", NAMES)
def test_an_identifier_in_a_store_on_s3_stops_the_night(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    patient = "PID-4815162342-9"
    store.write(name, content(name, f"{patient} read"))
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(EnvironmentFault, match="identifies a patient") as caught,
    ):
        search(archive(tmp_path, patient), Settings())
    assert name in str(caught.value)
    assert patient not in str(caught.value)
    assert not [word for word in (patient, USER, WORD) if word in str(caught.value) + caplog.text]


def test_an_object_named_after_a_patient_stops_the_night_unnamed(tmp_path: Path, store: Store) -> None:
    store.write("datasets/left/PID-48151623-9", b"")
    with pytest.raises(EnvironmentFault, match="in the name of a file") as caught:
        search(archive(tmp_path, "PID-48151623-9"), Settings())
    assert "PID-48151623-9" not in str(caught.value)


def test_a_clean_store_on_s3_is_searched_once_and_the_night_goes_on(tmp_path: Path, store: Store) -> None:
    for name in NAMES:
        store.write(name, b"0f3c9a, 4 images of 3 patients")
    source = archive(tmp_path, "PID-90210777-0")
    for _ in range(2):
        result = search(source, Settings())
        assert (result.files, result.left_out, result.hits) == (len(NAMES), 0, ())


def test_of_a_store_on_s3_what_stood_before_the_night_is_not_fetched(tmp_path: Path, store: Store) -> None:
    store.write("datasets/left/a", b"PID-48151623-9")
    settings = Settings()
    assert remote_leaks.fetch_written(settings, time.time() + 60, "seed") == ([], 0)
    assert not settings.cache.exists()


def test_of_a_store_on_s3_no_more_is_fetched_than_searched(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.deidentify.proof.leak_search.BUDGET_BYTES", 25)
    for number in range(5):
        store.write(f"datasets/left/{number}", b"\0" * 10)
    drawn = [remote_leaks.fetch_written(Settings(), 0, seed) for seed in "aabcdefgh"]
    assert {(len(paths), left_out) for paths, left_out in drawn} == {(2, 3)}
    assert drawn[0] == drawn[1]
    assert len({path for paths, _ in drawn for path in paths}) > 2
    assert search(archive(tmp_path, "PID-90210777-3"), Settings()).left_out == 3


def test_a_store_on_s3_that_refuses_stops_the_night_without_its_credentials(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(EnvironmentFault, match="refuses access") as caught,
    ):
        search(archive(tmp_path, "PID-90210777-4"), Settings())
    assert not [word for word in ("wrong-and-secret", WORD) if word in str(caught.value) + caplog.text]
