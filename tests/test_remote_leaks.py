"""What a night leaves on servers of its own choice is searched too, through their clients and within a limit."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from imaging.deidentify.proof.residue import Residue
from imaging.errors import EnvironmentFault
from tasks import remote_leaks
from tasks.leaks import search_leaks
from tasks.requests import IngestRequest
from tasks.settings import Settings
from tests.conftest import Running
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


def search(source: str, settings: Settings) -> Residue:
    return search_leaks.fn(IngestRequest(source=source, dataset=DATASET), settings, took_s=60, seed="tonight")


def run_id(settings: Settings) -> tuple[MlflowClient, str]:
    client = MlflowClient(settings.tracking_uri)
    found = client.get_experiment_by_name(DATASET)
    experiment = found.experiment_id if found else client.create_experiment(DATASET)
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
    found = search(archive(tmp_path, "PID-90210777-0"), elsewhere)
    assert found.files >= 6
    assert (found.hits, found.left_out) == ((), 0)
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
