"""Runs in MLflow: one per training, with its parameters, metrics, dataset and environment."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import EnvironmentFault, RadloopError, UserFault
from imaging.store.durable_file import UNWRITABLE
from imaging.store.s3_faults import fault_of_exception
from services.settings import Settings

SYSTEM_METRICS_INTERVAL_S = 2

CREDENTIALS = (
    "refuses us: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
    "to those of an account that may write"
)
SILENCE = "does not answer: start it, or correct or unset MLFLOW_TRACKING_URI"
FULL = "has no room or no right to write: make room on its disk, or give write access, and run again"
RUN_DELETED = (
    "no longer has run {0} (deleted): `mlflow runs restore --run-id {0}` restores it; or train again, --again"
)
FAULTS: Mapping[str, tuple[type[RadloopError], str]] = {
    "Max retries exceeded": (EnvironmentFault, SILENCE),
    "failed with exception": (EnvironmentFault, SILENCE),
    "error code 401": (EnvironmentFault, CREDENTIALS),
    "error code 403": (EnvironmentFault, CREDENTIALS),
    "No space left on device|database or disk is full|readonly database": (EnvironmentFault, FULL),
    r"The run (\w+) must be in the 'active' state": (UserFault, RUN_DELETED),
    r"Cannot start run with ID (\w+) because it is in the deleted": (UserFault, RUN_DELETED),
    r"Run with id=(\w+) not found": (UserFault, RUN_DELETED),
    r"The experiment (\w+) must be in the 'active' state": (
        UserFault,
        "no longer has experiment {0} (it was deleted): restore it (`mlflow experiments restore --experiment-id {0}`)",
    ),
    r"Model Version \(name=(.+), version=(\d+)\) not found": (
        UserFault,
        "no longer has version {1} of {0!r} (it was deleted): train again with --again",
    ),
    r"Registered Model with name=(.+) not found": (
        UserFault,
        "no longer has the model {0!r} (it was deleted): train again, which makes it anew",
    ),
}
"""Texts of MLflow's errors (patterns, whose groups a sentence may name), the class of our fault, and its sentence.

MLflow's codes say less: of a deleted run it says INVALID_PARAMETER_VALUE.
"""


@contextmanager
def reachable(settings: Settings) -> Iterator[MlflowClient]:
    """Yield a client; every call to MLflow goes through here, so that what a person can mend has a sentence.

    Raises EnvironmentFault for a server that does not answer, refuses us, or has no room, and UserFault for what was
    deleted by hand.
    """
    where = f"MLflow at {settings.tracking_uri}"
    try:
        yield MlflowClient(settings.tracking_uri, settings.tracking_uri)
    except MlflowException as error:
        for pattern, (fault, sentence) in FAULTS.items():
            if match := re.search(pattern, str(error)):
                raise fault(f"{where} {sentence.format(*match.groups())}") from error
        if of_s3 := fault_of_exception(error, _artifacts_bucket(settings)):
            raise of_s3 from error
        raise
    except OSError as error:
        # Others, such as a connection that broke, may pass: their task is tried again.
        if error.errno not in UNWRITABLE:
            raise
        place = error.filename or settings.artifact_location
        raise EnvironmentFault(f"MLflow's folder of artifacts, {place}, {FULL} ({error.strerror})") from error
    except Exception as error:
        # Clients read and write files on S3 by themselves, and MLflow hands on what boto3 raises.
        if of_s3 := fault_of_exception(error, _artifacts_bucket(settings)):
            raise of_s3 from error
        raise


def _artifacts_bucket(settings: Settings) -> str:
    return (
        f"bucket of MLflow's artifacts ({settings.artifact_location or f'chosen by {settings.tracking_uri}'})"
    )


def check_experiment(settings: Settings, name: str) -> Experiment | None:
    """Return the experiment of this name, or None; raise UserFault for one that was deleted and hides there still."""
    with reachable(settings) as client:
        known = client.get_experiment_by_name(name)
    if known is not None and known.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UserFault(
            f"experiment {name!r} was deleted from MLflow at {settings.tracking_uri} and keeps its name: restore it "
            f"(`MLFLOW_TRACKING_URI={settings.tracking_uri} mlflow experiments restore --experiment-id "
            f"{known.experiment_id}`), or use another --name"
        )
    return known


def open_experiment(settings: Settings, name: str) -> str:
    """Return the id of the experiment of this name, made on first use."""
    known = check_experiment(settings, name)
    if known is not None:
        return str(known.experiment_id)
    with reachable(settings) as client:
        return str(client.create_experiment(name, artifact_location=settings.artifact_location))


def start_run(
    settings: Settings, experiment: str, run_name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """Open a run and return its id; whatever restarts later writes into this one."""
    experiment_id = open_experiment(settings, experiment)
    with reachable(settings) as client:
        run = client.create_run(experiment_id, run_name=run_name, tags=dict(tags))
    with failing_run(settings, run.info.run_id), reachable(settings) as client:
        flat = [Param(name, str(value)) for name, value in flatten(parameters)]
        client.log_batch(run.info.run_id, params=flat, tags=[RunTag("git.commit", commit())])
        client.log_text(run.info.run_id, pinned_environment(), "environment.txt")
    return str(run.info.run_id)


def stopped_run(settings: Settings, experiment: str, key: Mapping[str, str]) -> Run | None:
    """Return the last run with these tags if it was stopped."""
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in key.items())
    with reachable(settings) as client:
        known = client.get_experiment_by_name(experiment)
        runs = client.search_runs([known.experiment_id], query, max_results=1) if known else []
    return runs[0] if runs and runs[0].info.status == "KILLED" else None


def reopen(settings: Settings, run_id: str, tags: Mapping[str, str]) -> None:
    """Open a run again, under new tags."""
    with reachable(settings) as client:
        client.update_run(run_id, status="RUNNING")
        for name, value in tags.items():
            client.set_tag(run_id, name, value)


def logged_epochs(settings: Settings, run_id: str) -> int:
    """Return of how many epochs a run has the metrics."""
    with reachable(settings) as client:
        return len({metric.step for metric in client.get_metric_history(run_id, "train_loss")})


@contextmanager
def failing_run(settings: Settings, run_id: str) -> Iterator[None]:
    """Close a run as failed when the block fails, and as killed when it is cancelled, whoever logs to it."""
    try:
        yield
    except BaseException as error:
        # The block's own fault is what a person must know: on a full disk this fails, too.
        with suppress(RadloopError, MlflowException, OSError):
            end_run(settings, run_id, status_after(error))
        raise


def log_dataset(settings: Settings, run_id: str, version: DatasetVersion, context: str) -> None:
    """Record a dataset version as an input of a run: its name, digest and counts."""
    counts = version.counts.findings or version.counts.labelled
    learned = {"findings": version.findings} if version.findings else {"classes": version.classes}
    dataset = Dataset(
        name=version.head.dataset,
        digest=version.digest,
        source_type="radloop",
        source=json.dumps({"dataset": version.head.dataset, "version": version.digest}),
        schema=json.dumps({**learned, "spec": version.spec.digest}),
        profile=json.dumps({"examples": version.table("examples", ["row"]).num_rows, "counts": counts}),
    )
    with reachable(settings) as client:
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def epoch_metrics(rows: Sequence[Mapping[str, float]]) -> list[Metric]:
    """Return what epochs measured as metrics, one step an epoch; MLflow's charts count from 1, as people do."""
    now_ms = int(time.time() * 1000)
    return [
        Metric(name, float(value), now_ms, int(row["epoch"]) + 1)
        for row in rows
        for name, value in row.items()
        if name != "epoch"
    ]


def log_metrics(settings: Settings, run_id: str, metrics: Mapping[str, float]) -> None:
    """Log numbers of a whole run in one batch."""
    now_ms = int(time.time() * 1000)
    with reachable(settings) as client:
        client.log_batch(run_id, metrics=[Metric(name, value, now_ms, 0) for name, value in metrics.items()])


@contextmanager
def watched_run(settings: Settings, run_id: str) -> Iterator[None]:
    """Record the machine's processors, memory and disks in a run while the block lasts, however short it is."""
    check_run(settings, run_id)
    with reachable(settings) as client:
        client.update_run(run_id, "RUNNING")
        monitor = SystemMetricsMonitor(
            run_id, SYSTEM_METRICS_INTERVAL_S, 1, resume_logging=True, tracking_uri=settings.tracking_uri
        )
        # The use of a processor is measured since the last call of the same thread.
        monitor.collect_metrics()
        monitor.start()
    try:
        yield
    except BaseException as error:
        with suppress(MlflowException, OSError):
            monitor.finish()
            client.set_terminated(run_id, status_after(error))
        raise
    with reachable(settings):
        monitor.finish()
        # MLflow writes a sample when an interval is over: without this one a run shorter than that would have none.
        for one in monitor.monitors:
            one.clear_metrics()
        monitor.collect_metrics()
        monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()


def status_after(error: BaseException) -> str:
    """Return the status of a run that an exception ended: Prefect cancels by one that is no Exception."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def end_run(settings: Settings, run_id: str, status: str = "FINISHED") -> None:
    """Close a run."""
    with reachable(settings) as client:
        client.set_terminated(run_id, status)


def end_runs_tagged(settings: Settings, tag: str, value: str) -> None:
    """Mark the runs with this tag that still seem to go on as killed."""
    with reachable(settings) as client:
        experiments = [item.experiment_id for item in client.search_experiments()]
        query = f"attributes.status = 'RUNNING' and tags.`{tag}` = '{value}'"
        for run in client.search_runs(experiments, query):
            client.set_terminated(run.info.run_id, "KILLED")


def get_run(settings: Settings, run_id: str) -> Run:
    """Return a run with its parameters, metrics and tags."""
    with reachable(settings) as client:
        return client.get_run(run_id)


def check_run(settings: Settings, run_id: str) -> None:
    """Raise UserFault where a run was deleted."""
    if get_run(settings, run_id).info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UserFault(f"MLflow at {settings.tracking_uri} {RUN_DELETED.format(run_id)}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values under dotted names.

    >>> list(flatten({"a": {"b": 1}, "c": 2}))
    [('a.b', 1), ('c', 2)]
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def commit() -> str:
    """Return the git commit of this code, with a mark where the working tree differs from it."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def pinned_environment() -> str:
    """Return the installed packages with their versions, one a line."""
    return "\n".join(sorted({f"{item.name}=={item.version}" for item in distributions()}))
