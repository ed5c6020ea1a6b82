"""Runs in MLflow: one per training, with its parameters, its data and where it came from."""

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import EnvironmentFault, RadloopError, UserFault
from imaging.store.folder_store import FolderStore
from models.config import TrainConfig
from services.mlflow import runs as tracking
from services.mlflow.runs import (
    check_run,
    end_run,
    end_runs_tagged,
    epoch_metrics,
    flatten,
    get_run,
    log_dataset,
    log_metrics,
    logged_epochs,
    open_experiment,
    reachable,
    reopen,
    start_run,
    stopped_run,
    watched_run,
)
from services.settings import Settings
from tests.synthetic import version_of

NESTED = TrainConfig().model_dump(mode="json")


@pytest.fixture
def run_id(tracked: Settings) -> str:
    return start_run(tracked, "tracking", "a name", NESTED, {"prefect.flow_run": "f1"})


@pytest.fixture
def run(tracked: Settings, run_id: str) -> Run:
    return get_run(tracked, run_id)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return version_of(FolderStore(tmp_path_factory.mktemp("store")))


def test_a_run_has_every_parameter_under_its_dotted_name(run: Run) -> None:
    assert run.data.params == {name: str(value) for name, value in flatten(NESTED)}
    assert run.data.params["optimizer.name"] == "adamw"


def test_a_run_has_its_name_and_tags(run: Run) -> None:
    assert run.info.run_name == "a name"
    assert run.data.tags["prefect.flow_run"] == "f1"


def test_a_run_names_the_commit_of_this_code(run: Run) -> None:
    assert run.data.tags["git.commit"] == tracking.commit()


def test_a_run_keeps_the_pinned_environment(tracked: Settings, run_id: str) -> None:
    path = MlflowClient(tracked.tracking_uri).download_artifacts(run_id, "environment.txt")
    lines = Path(path).read_text().splitlines()
    assert any(line.startswith("torch==") for line in lines)


def test_an_experiment_is_made_once(tracked: Settings) -> None:
    assert open_experiment(tracked, "tracking-once") == open_experiment(tracked, "tracking-once")


def test_files_of_the_embedded_default_stay_in_the_home(tracked: Settings, run: Run) -> None:
    assert run.info.artifact_uri.startswith((tracked.folder / "mlartifacts").as_uri())


def test_a_dataset_is_an_input_with_name_digest_and_counts(
    tracked: Settings, run_id: str, version: DatasetVersion
) -> None:
    log_dataset(tracked, run_id, version, "training")
    (given,) = get_run(tracked, run_id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("d", version.digest)
    assert json.loads(given.dataset.profile) == {"examples": 30, "counts": version.counts.labelled}
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]


def test_metrics_of_a_run_are_one_batch(
    tracked: Settings, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, *args: Any, metrics: Any = (), **rest: Any) -> Any:
        batches.append(len(metrics))
        return log_batch(self, *args, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    log_metrics(tracked, run_id, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert batches == [3]
    assert get_run(tracked, run_id).data.metrics == {"a": 1.0, "b": 2.0, "c": 3.0}


def test_an_epoch_is_a_step(tracked: Settings, run_id: str) -> None:
    rows = [{"epoch": 0, "val_auroc": 0.5}, {"epoch": 1, "val_auroc": 0.75}]
    client = MlflowClient(tracked.tracking_uri)
    client.log_batch(run_id, metrics=epoch_metrics(rows))
    history = client.get_metric_history(run_id, "val_auroc")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.75)]


def test_more_epochs_than_the_limit_of_a_batch_are_logged(tracked: Settings, run_id: str) -> None:
    rows = [{"epoch": epoch, "a": 1.0, "b": 2.0} for epoch in range(600)]
    client = MlflowClient(tracked.tracking_uri)
    client.log_batch(run_id, metrics=epoch_metrics(rows))
    assert len(client.get_metric_history(run_id, "b")) == 600


def test_a_run_ends_with_the_given_status(tracked: Settings, run_id: str) -> None:
    end_run(tracked, run_id, "FAILED")
    assert get_run(tracked, run_id).info.status == "FAILED"


def test_runs_of_a_flow_that_is_gone_are_ended_and_no_others(tracked: Settings) -> None:
    flow, name = "prefect.flow_run", "tracking-gone"
    mine, done, other = (start_run(tracked, name, "r", {}, {flow: which}) for which in ("x", "x", "y"))
    end_run(tracked, done)
    end_runs_tagged(tracked, flow, "x")
    assert [get_run(tracked, run).info.status for run in (mine, done, other)] == [
        "KILLED",
        "FINISHED",
        "RUNNING",
    ]


def test_a_watched_run_goes_on_and_has_the_machines_numbers(
    tracked: Settings, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SYSTEM_METRICS_INTERVAL_S", 0.1)
    with watched_run(tracked, run_id):
        time.sleep(0.5)
    run = get_run(tracked, run_id)
    assert run.info.status == "RUNNING"
    assert any(name.startswith("system/") for name in run.data.metrics)


def test_a_watched_run_that_is_shorter_than_an_interval_has_the_machines_numbers(
    tracked: Settings, run_id: str
) -> None:
    with watched_run(tracked, run_id):
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            pass
    metrics = get_run(tracked, run_id).data.metrics
    assert metrics["system/cpu_utilization_percentage"] > 0
    assert metrics["system/system_memory_usage_megabytes"] > 0


@pytest.mark.parametrize(
    ("error", "status"),
    [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_watched_run_that_fails_is_failed_and_one_that_is_stopped_is_killed(
    tracked: Settings, run_id: str, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), watched_run(tracked, run_id):
        raise error
    assert get_run(tracked, run_id).info.status == status


def test_the_last_run_is_opened_again_only_where_it_was_stopped(tracked: Settings) -> None:
    name, key = "tracking-stopped", {"training.key": "k"}
    for status in ("KILLED", "FINISHED"):
        end_run(tracked, start_run(tracked, name, "r", {}, key), status)
    assert stopped_run(tracked, name, key) is None
    last = start_run(tracked, name, "r", {}, key)
    end_run(tracked, last, "KILLED")
    assert stopped_run(tracked, name, {"training.key": "other"}) is None
    stopped = stopped_run(tracked, name, key)
    assert stopped is not None
    assert stopped.info.run_id == last
    reopen(tracked, last, {"prefect.flow_run": "new"})
    run = get_run(tracked, last)
    assert (run.info.status, run.data.tags["prefect.flow_run"]) == ("RUNNING", "new")


def test_epochs_with_metrics_are_counted_once(tracked: Settings, run_id: str) -> None:
    assert logged_epochs(tracked, run_id) == 0
    with reachable(tracked) as client:
        for _ in range(2):
            rows = [{"epoch": epoch, "train_loss": 0.5} for epoch in range(3)]
            client.log_batch(run_id, metrics=epoch_metrics(rows))
    assert logged_epochs(tracked, run_id) == 3


@pytest.mark.parametrize(
    "message",
    [
        "API request to http://h failed with exception HTTPConnectionPool: Max retries exceeded",
        "API request to endpoint failed with error code 401 != 200",
    ],
)
def test_a_server_that_does_not_serve_is_a_fault_of_the_environment(tracked: Settings, message: str) -> None:
    with pytest.raises(EnvironmentFault, match="MLflow at "), reachable(tracked):
        raise MlflowException(message)


def test_other_errors_of_mlflow_are_not_dressed_up(tracked: Settings) -> None:
    with pytest.raises(MlflowException, match="bad name"), reachable(tracked):
        raise MlflowException("bad name")


def test_a_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert tracking.commit() == "unknown"


def test_a_deleted_experiment_is_refused_with_the_command_that_restores_it(tracked: Settings) -> None:
    client, number = MlflowClient(tracked.tracking_uri), open_experiment(tracked, "deleted-experiment")
    client.delete_experiment(number)
    with pytest.raises(
        UserFault, match=f"'deleted-experiment' was deleted .* restore --experiment-id {number}"
    ):
        start_run(tracked, "deleted-experiment", "a", {}, {})
    client.restore_experiment(number)
    assert open_experiment(tracked, "deleted-experiment") == number


@pytest.mark.parametrize(
    "use",
    [
        check_run,
        lambda settings, run_id: log_metrics(settings, run_id, {"a": 1.0}),
        lambda settings, run_id: watched_run(settings, run_id).__enter__(),
    ],
)
def test_a_deleted_run_is_named_with_the_command_that_restores_it(
    tracked: Settings, use: Callable[[Settings, str], object]
) -> None:
    run_id = start_run(tracked, "deleted-runs", "a", {}, {})
    MlflowClient(tracked.tracking_uri).delete_run(run_id)
    with pytest.raises(UserFault, match=f"restore --run-id {run_id}"):
        use(tracked, run_id)


def test_a_run_that_never_was_is_named(tracked: Settings) -> None:
    with pytest.raises(UserFault, match="no longer has run 00000000"):
        log_metrics(tracked, "0" * 32, {"a": 1.0})


FULL_DISK = OSError(errno.ENOSPC, "No space left on device", "/mlartifacts/1/environment.txt")


@pytest.mark.parametrize(
    "error",
    [
        FULL_DISK,
        OSError(errno.EROFS, "Read-only file system"),
        # What SQLAlchemy says of SQLite, and an MLflow server of the disk behind it.
        MlflowException("(sqlite3.OperationalError) database or disk is full"),
        MlflowException("API request failed with error code 500: No space left on device"),
    ],
)
def test_a_full_disk_is_a_fault_of_the_environment(tracked: Settings, error: Exception) -> None:
    with pytest.raises(EnvironmentFault, match="make room on its disk"), reachable(tracked):
        raise error


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), OSError(errno.EIO, "passes"), MlflowException("else")]
)
def test_what_may_pass_or_is_a_bug_stays_what_it_is(tracked: Settings, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, reachable(tracked):
        raise error
    assert not isinstance(caught.value, RadloopError)


def test_a_run_whose_first_file_finds_no_room_is_not_left_running(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FULL_DISK

    monkeypatch.setattr(MlflowClient, "log_text", full)
    with pytest.raises(EnvironmentFault, match=r"/mlartifacts/1/environment.txt, has no room"):
        start_run(tracked, "full-disk", "a", {}, {})
    client = MlflowClient(tracked.tracking_uri)
    (left,) = client.search_runs([open_experiment(tracked, "full-disk")])
    assert left.info.status == "FAILED"
