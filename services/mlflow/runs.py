"""Runs in MLflow: one per training, with its parameters, metrics, dataset and environment."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import EnvironmentFault
from services.settings import Settings

SYSTEM_METRICS_INTERVAL_S = 2

CREDENTIALS = (
    "refuses us: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
    "to those of an account that may write"
)
SILENCE = "does not answer: start it, or correct or unset MLFLOW_TRACKING_URI"
REFUSALS = {
    "Max retries exceeded": SILENCE,
    "failed with exception": SILENCE,
    "error code 401": CREDENTIALS,
    "error code 403": CREDENTIALS,
}
"""Texts of MLflow's errors when a server is not there or does not let us in, and our messages for them."""


@contextmanager
def reachable(settings: Settings) -> Iterator[MlflowClient]:
    """Yield a client; raise EnvironmentFault for a server that does not answer, or refuses us."""
    try:
        yield MlflowClient(settings.tracking_uri, settings.tracking_uri)
    except MlflowException as error:
        for text, message in REFUSALS.items():
            if text in str(error):
                raise EnvironmentFault(f"the MLflow server at {settings.tracking_uri} {message}") from error
        raise


def open_experiment(settings: Settings, name: str) -> str:
    """Return the id of the experiment of this name, made on first use."""
    with reachable(settings) as client:
        known = client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        return str(client.create_experiment(name, artifact_location=settings.artifact_location))


def start_run(
    settings: Settings, experiment: str, run_name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """Open a run and return its id; whatever restarts later writes into this one."""
    experiment_id = open_experiment(settings, experiment)
    with reachable(settings) as client:
        run = client.create_run(experiment_id, run_name=run_name, tags=dict(tags))
        flat = [Param(name, str(value)) for name, value in flatten(parameters)]
        client.log_batch(run.info.run_id, params=flat, tags=[RunTag("git.commit", commit())])
        client.log_text(run.info.run_id, pinned_environment(), "environment.txt")
    return str(run.info.run_id)


def log_dataset(settings: Settings, run_id: str, version: DatasetVersion, context: str) -> None:
    """Record a dataset version as an input of a run: its name, digest and counts."""
    counts = version.counts.labelled
    dataset = Dataset(
        name=version.head.dataset,
        digest=version.digest,
        source_type="radloop",
        source=json.dumps({"dataset": version.head.dataset, "version": version.digest}),
        schema=json.dumps({"classes": list(version.classes), "spec": version.spec.digest}),
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
    """Record the machine's processors, memory and disks in a run while the block lasts."""
    mlflow.set_tracking_uri(settings.tracking_uri)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_INTERVAL_S)
    mlflow.set_system_metrics_samples_before_logging(1)
    mlflow.start_run(run_id=run_id, log_system_metrics=True)
    try:
        yield
    except BaseException:
        mlflow.end_run("FAILED")
        raise
    # Not finished yet: the model is registered under this run once the caller has exported it.
    mlflow.end_run("RUNNING")


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
