"""Dataset versions that MLflow names: by models, by runs that go on, and by what was measured."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from imaging.errors import EnvironmentFault
from imaging.store.folder_store import FolderStore
from models.objectives.classification import Classification
from services.mlflow import registry
from services.mlflow.registry import model_tags, named_datasets, register, set_tags
from services.mlflow.runs import end_run, log_dataset, reachable, start_run
from services.settings import Settings
from tests.synthetic import GREY, bright_model, closed_port, version_of

pytestmark = pytest.mark.slow


@pytest.fixture
def name() -> str:
    return f"named-{uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ask for one at a time, so that every page is turned."""
    monkeypatch.setattr(registry, "PAGE", 1)
    yield


def test_a_run_that_goes_on_names_its_version(tracked: Settings, name: str) -> None:
    start_run(tracked, name, "run", {"dataset.digest": f"digest of {name}"}, {})
    assert f"digest of {name}" in named_datasets(tracked)


def test_all_runs_of_all_experiments_count(tracked: Settings, name: str) -> None:
    for number in range(3):
        for experiment in ("one", "two"):
            digest = f"{name} {experiment} {number}"
            run = start_run(tracked, f"{name}-{experiment}", "run", {"dataset.digest": digest}, {})
            end_run(tracked, run)
    digests = {digest for digest in named_datasets(tracked) if digest.startswith(name)}
    assert digests == {f"{name} {which} {number}" for which in ("one", "two") for number in range(3)}


def test_a_dataset_that_a_run_was_given_is_named(tracked: Settings, name: str, tmp_path: Path) -> None:
    version = version_of(FolderStore(tmp_path), name=name)
    log_dataset(tracked, start_run(tracked, name, "run", {}, {}), version, "training")
    assert version.digest in named_datasets(tracked)


@pytest.mark.parametrize("tag", ["dataset.digest", "reevaluated.dataset"])
def test_a_model_names_what_it_was_made_from_and_measured_on(tracked: Settings, name: str, tag: str) -> None:
    from models.config import TrainConfig

    objective = Classification(classes=("dark", "bright"))
    tags = model_tags(GREY, TrainConfig(network="small_cnn"), objective)
    run = start_run(tracked, name, "run", {}, {})
    model = register(tracked, name, run, bright_model(), tags | {"threshold": "0.5"})
    set_tags(tracked, model, {tag: f"digest of {name}"})
    assert f"digest of {name}" in named_datasets(tracked)


def test_a_run_that_was_deleted_names_nothing(tracked: Settings, name: str) -> None:
    run = start_run(tracked, name, "run", {"dataset.digest": f"digest of {name}"}, {})
    with reachable(tracked) as client:
        client.delete_run(run)
    assert f"digest of {name}" not in named_datasets(tracked)


def test_looking_makes_no_registry(settings: Settings) -> None:
    assert (named_datasets(settings), settings.folder.exists()) == (frozenset(), False)


def test_a_server_that_does_not_answer_stops_it(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(EnvironmentFault, match=f"MLflow at {address} does not answer"):
        named_datasets(Settings())
