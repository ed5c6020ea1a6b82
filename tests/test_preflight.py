"""Checks before any work: the input that was named, and the servers."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imaging.errors import EnvironmentFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from models.config import TrainConfig
from services import server_checks
from services.flow_requests import IngestRequest, NightlyRequest
from services.input_checks import check_input, check_modality
from services.preflight import check_request
from services.server_checks import check_servers
from services.settings import Settings
from tests.synthetic import closed_port, write_archive, write_labels


@contextmanager
def answering(status: int, login: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Answer every request with this status; yield the address and the paths that were asked for.

    With a login all paths but the one of its health are for who sends it, as in Prefect's server.
    """
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            open_to_all = login is None or self.path.endswith("/health")
            self.send_response(status if open_to_all or self.headers["Authorization"] == login else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> IngestRequest:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "pictures/a.png")
    (tmp_path / "labels.csv").write_text("file,PatientID,label\na.png,P,x\n")
    return IngestRequest(source=str(tmp_path / "pictures"), labels=str(tmp_path / "labels.csv"))


@pytest.mark.parametrize(
    "given", [{"window": "2048/4096"}, {"size_px": 32}, {"window": "auto", "order": "resize-window"}]
)
def test_pictures_do_not_become_ct_by_a_window_alone(pictures: IngestRequest, given: dict[str, Any]) -> None:
    request = pictures.model_copy(update={"preprocess": PreprocessSpec.model_validate(given)})
    with pytest.raises(UserFault, match=r"would be taken as CT: add --modality OT \(other\)"):
        check_modality(request, check_input(request))


@pytest.mark.parametrize("modality", ["OT", "CT", "XC"])
def test_pictures_are_what_a_person_calls_them(pictures: IngestRequest, modality: str) -> None:
    spec = PreprocessSpec.model_validate({"modality": modality, "window": "2048/4096"})
    for preprocess in (spec, None):
        request = pictures.model_copy(update={"preprocess": preprocess})
        check_modality(request, check_input(request))


def test_a_network_of_volumes_is_refused_for_images_before_anything_is_read(
    pictures: IngestRequest, settings: Settings
) -> None:
    night = NightlyRequest(**pictures.model_dump(), training=TrainConfig(network="resnet18_3d"))
    with pytest.raises(UserFault, match="'resnet18_3d' is made for examples of the kind volume"):
        check_request("nightly", night, settings)


def test_the_embedded_default_asks_nobody(settings: Settings) -> None:
    check_servers(settings)


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RADLOOP_RAY_ADDRESS"])
def test_a_closed_port_is_reported_within_seconds(environment: None, variable: str) -> None:
    os.environ[variable] = address = f"http://127.0.0.1:{closed_port()}"
    started = time.monotonic()
    with pytest.raises(EnvironmentFault, match=rf"answers at {address}.*or correct or unset {variable}"):
        check_servers(Settings())
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_a_server_is_asked_for_its_health(environment: None, variable: str) -> None:
    with answering(200) as (address, asked):
        os.environ[variable] = f"{address}/api/"
        check_servers(Settings())
    assert asked[0] == "/api/health"


@pytest.mark.parametrize("status", [404, 500, 503])
def test_something_else_that_answers_is_refused(environment: None, status: int) -> None:
    with answering(status) as (address, _):
        os.environ["PREFECT_API_URL"] = address
        with pytest.raises(EnvironmentFault, match=rf"no healthy Prefect server \(status {status}"):
            check_servers(Settings())


def test_a_server_that_asks_who_is_there_is_alive(environment: None) -> None:
    with answering(401) as (address, _):
        os.environ["MLFLOW_TRACKING_URI"] = address
        check_servers(Settings())


@pytest.mark.parametrize(("given", "what"), [(None, "a"), ("other:word", "another")])
def test_a_login_that_is_missing_or_wrong_is_refused(environment: None, given: str | None, what: str) -> None:
    with answering(200, login="Basic cmlnaHQ6d29yZA==") as (address, _):
        os.environ["PREFECT_API_URL"] = address
        os.environ |= {"PREFECT_API_AUTH_STRING": given} if given else {}
        with pytest.raises(EnvironmentFault, match=f"asks for {what} login: set PREFECT_API_AUTH_STRING"):
            check_servers(Settings())


@pytest.mark.parametrize("name", ["PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"])
def test_the_right_login_is_given(environment: None, name: str) -> None:
    with answering(200, login="Basic cmlnaHQ6d29yZA==") as (address, asked):
        os.environ |= {"PREFECT_API_URL": address, name: "right:word"}
        check_servers(Settings())
    assert asked == ["/health", "/version"]


def test_a_server_that_never_answers_is_not_waited_for(
    environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_checks, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with pytest.raises(EnvironmentFault, match="no Prefect server answers"):
            check_servers(Settings())


@pytest.mark.parametrize("uri", ["mlruns", "/srv/mlruns", "file:///srv/mlruns"])
def test_a_folder_is_no_registry(environment: None, uri: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    with pytest.raises(UserFault, match=rf"MLFLOW_TRACKING_URI={uri} names neither .*sqlite:///FILE"):
        check_servers(Settings())


def test_an_address_that_is_none_is_refused(environment: None) -> None:
    os.environ["PREFECT_API_URL"] = "not an address"
    with pytest.raises(EnvironmentFault, match="no Prefect server answers at not an address"):
        check_servers(Settings())


def test_good_input_is_opened(tmp_path: Path) -> None:
    folder, labels = write_archive(tmp_path / "dicom", 1)
    assert check_input(IngestRequest(source=str(folder), labels=str(labels))).kind == "folder"


def test_an_npz_file_needs_no_label_table(tmp_path: Path) -> None:
    arrays = {f"{part}_images": np.zeros((2, 8, 8), np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.zeros((2, 1), np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "rows.npz", **arrays, **labels)
    assert check_input(IngestRequest(source=str(tmp_path / "rows.npz"))).kind == "medmnist"


def test_no_source_is_refused_and_not_taken_for_the_working_folder() -> None:
    with pytest.raises(UserFault, match="no source was given"):
        check_input(IngestRequest())


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.csv", [{"PatientID": "a", "label": "yes"}])
    (tmp_path / "dicom").mkdir()
    with pytest.raises(UserFault, match=r"holds no files: give --source"):
        check_input(IngestRequest(source=str(tmp_path / "dicom"), labels=str(labels)))


def test_a_label_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder, _ = write_archive(tmp_path / "dicom", 1)
    with pytest.raises(UserFault, match=r"no label table at .*nowhere\.csv: give --labels"):
        check_input(IngestRequest(source=str(folder), labels=str(tmp_path / "nowhere.csv")))


def test_dicom_without_labels_is_refused(tmp_path: Path) -> None:
    folder, _ = write_archive(tmp_path / "dicom", 1)
    with pytest.raises(UserFault, match=r"carries no labels: give --labels"):
        check_input(IngestRequest(source=str(folder)))


def test_the_label_column_is_looked_for(tmp_path: Path) -> None:
    folder, labels = write_archive(tmp_path / "dicom", 1)
    with pytest.raises(UserFault, match="no 'grade': give --label-column"):
        check_input(IngestRequest(source=str(folder), labels=str(labels), label_column="grade"))


def test_findings_without_a_table_are_refused_with_the_remedy(pictures: IngestRequest) -> None:
    request = IngestRequest(source=pictures.source, findings=("mass",))
    with pytest.raises(UserFault, match=r"findings are read from a table: give --labels"):
        check_input(request)


def test_masks_of_slides_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    request = IngestRequest(
        source=str(tmp_path), masks=str(tmp_path), mask_classes=("tumour",), preprocess={"slide_mpp": 0.5}
    )
    with pytest.raises(UserFault, match="with slide_mpp slides become tiles"):
        check_input(request)


def test_columns_of_findings_are_looked_for_before_any_image(pictures: IngestRequest, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,PatientID,mass\na.png,P,1\n")
    assert check_input(pictures.model_copy(update={"findings": ("mass",)})).kind == "folder"
    with pytest.raises(UserFault, match=r"no table has a column for 'oedema' of --findings"):
        check_input(pictures.model_copy(update={"findings": ("mass", "oedema")}))
