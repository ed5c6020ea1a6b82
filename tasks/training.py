"""Owns the steps of a training flow: begin a run, fit, register the candidate, and stop what was abandoned."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.version.dataset_version import DatasetVersion, newest_version, open_version
from imaging.dataset.version.trainable import check_trainable
from imaging.errors import UserFault
from imaging.store.open import open_store
from services.mlflow.registry import Registered
from services.ray import running_jobs
from services.ray.fitting import FitOutcome, TrainingJob, fit, fit_on_cluster
from services.settings import Settings
from tasks.candidate import find_trained, make_candidate
from tasks.requests import TrainRequest
from tasks.retry import INPUT_OUTPUT

FLOW_RUN_TAG = "prefect.flow_run"


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """The candidate that a training gave, or had given before."""

    candidate: Registered
    trained_now: bool
    best_epoch: int | None
    history: tuple[Mapping[str, float], ...]
    timings_s: Mapping[str, float]


def newest_dataset(settings: Settings, dataset: str) -> DatasetVersion:
    """Return the newest version of a dataset; there must be one."""
    version = newest_version(settings.dataset_store, dataset)
    if version is None:
        raise UserFault(
            f"there is no dataset {dataset!r} in {settings.dataset_place}: run `radloop ingest` first"
        )
    return version


@task(name="look for a trained model", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def known_candidate(request: TrainRequest, settings: Settings) -> TrainOutcome | None:
    """Return the candidate of this very data and configuration, if it was trained before."""
    version = newest_dataset(settings, request.dataset)
    check_trainable(version)
    found = find_trained(settings, version, request.training)
    if found is None or request.again:
        return None
    print(
        f"Version {found.version} was trained on this data with this configuration already: not trained again"
    )
    return TrainOutcome(candidate=found, trained_now=False, best_epoch=None, history=(), timings_s={})


@task(name="begin run", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def begin(request: TrainRequest, settings: Settings, flow_run_id: str) -> TrainingJob:
    """Open the MLflow run of a training, and write down what it needs."""
    from services.mlflow.runs import log_dataset, start_run

    version = newest_dataset(settings, request.dataset)
    config = request.training
    parameters = config.model_dump(mode="json") | {
        "dataset.digest": version.digest,
        "spec": version.spec.digest,
    }
    name = f"{config.network} {version.digest[:8]}"
    run_id = start_run(settings, request.dataset, name, parameters, {FLOW_RUN_TAG: flow_run_id})
    log_dataset(settings, run_id, version, "training")
    return TrainingJob(
        store=settings.dataset_place,
        cache=str(settings.cache),
        cache_bytes=settings.cache_bytes,
        dataset=request.dataset,
        digest=version.digest,
        train=config.model_dump(mode="json"),
        run_folder=str(settings.store_root / "training" / run_id),
        run_id=run_id,
        flow_run_id=flow_run_id,
    )


@task(name="fit", cache_policy=NO_CACHE)
def fit_model(job: TrainingJob, settings: Settings) -> FitOutcome:
    """Fit on Ray, here or on the cluster; Ray retries lost workers, so Prefect does not retry this."""
    from services.ray.cluster import local_ray

    with failing(job, settings):
        if settings.ray_address:
            return fit_on_cluster(job, settings, f"prefect-{job.flow_run_id}", say=print)
        started = time.monotonic()
        with local_ray(int(job.train["workers"])):
            ray_start_s = time.monotonic() - started
            outcome = fit(job, settings, say=print)
        return replace(outcome, timings_s={"Ray start": ray_start_s, **outcome.timings_s})


@task(name="register candidate", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def finish(job: TrainingJob, outcome: FitOutcome, settings: Settings) -> TrainOutcome:
    """Export the best epoch, register it as the challenger, and close the run."""
    from services.mlflow.runs import end_run

    started = time.monotonic()
    version = open_version(open_store(job.store, Path(job.cache), job.cache_bytes), job.dataset, job.digest)
    with failing(job, settings):
        candidate = make_candidate(settings, job, outcome, version)
    end_run(settings, job.run_id)
    timings = {**outcome.timings_s, "export and registration": time.monotonic() - started}
    return TrainOutcome(
        candidate=candidate,
        trained_now=True,
        best_epoch=outcome.best_epoch,
        history=outcome.history,
        timings_s=timings,
    )


def stop(flow_run_id: str, settings: Settings) -> None:
    """End what a flow run left behind: its Ray job, and its MLflow runs that look as if they still went on."""
    from services.mlflow.runs import end_runs_tagged

    running_jobs.stop(flow_run_id, settings)
    end_runs_tagged(settings, FLOW_RUN_TAG, flow_run_id)


@contextmanager
def failing(job: TrainingJob, settings: Settings) -> Iterator[None]:
    """Close the MLflow run as failed when the block fails, whoever was logging to it."""
    from services.mlflow.runs import end_run

    try:
        yield
    except BaseException:
        end_run(settings, job.run_id, "FAILED")
        raise
