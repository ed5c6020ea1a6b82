"""Steps of a training: begin a run, fit, register the best epoch as the candidate, and stop what was abandoned."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.version.dataset_version import DatasetVersion, open_version
from imaging.release_compatibility import canonical
from imaging.store.open_store import open_store
from models.config import TrainConfig, training_key
from models.networks.weights_file import WEIGHTS_FILE
from models.objectives.aggregation import Units
from models.objectives.objective_catalog import VALIDATION_TAG, check_training, objective_of
from models.torch_process import end_torch, torch_process
from models.training.epoch_history import read_history
from services.datasets import newest_dataset
from services.flow_requests import TrainRequest
from services.mlflow.registry import (
    MODEL_FILE,
    Registered,
    check_files,
    model_tags,
    newest,
    register,
    set_alias,
    with_facts,
)
from services.mlflow.run_weights import log_weights
from services.mlflow.runs import (
    check_run,
    commit,
    end_run,
    end_runs_tagged,
    failing_run,
    log_dataset,
    reopen,
    start_run,
    stopped_run,
)
from services.open_runs import FLOW_RUN_TAG
from services.prefect.progress import log_of, page_bar
from services.ray.jobs import stop_job_of
from services.ray.trainer import FitOutcome, TrainingJob, fit, fit_on_cluster
from services.settings import Settings
from services.start_weights import named_by_content
from tasks.retry import INPUT_OUTPUT

CHECK_START = "models.training.start:check_start"


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """Candidate of a training, or of the same training before."""

    candidate: Registered
    trained_now: bool
    best_epoch: int | None
    history: tuple[Mapping[str, float], ...]
    timings_s: Mapping[str, float]


@task(name="fetch weights to start from", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def with_weights(request: TrainRequest, settings: Settings) -> TrainRequest:
    """Return the request with its weights in the store, under the digest that names the training too."""
    config = named_by_content(request.training, settings)
    print(f"The weights to start from, {request.training.start.weights}, are {config.start.weights}")
    return request.model_copy(update={"training": config})


@task(name="look for a trained model", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def known_candidate(request: TrainRequest, settings: Settings) -> TrainOutcome | None:
    """Return the candidate of this very data and configuration, if it was trained before."""
    version = newest_dataset(settings, request.dataset)
    check_training(request.training, version)
    trained = find_trained(settings, version, request.training)
    if trained is None or request.again:
        return None
    # The gate logs its measures under the run, and loads the file.
    check_run(settings, trained.run_id)
    check_files(settings, trained)
    print(
        f"Version {trained.version} of {trained.name!r} was trained on this data with this configuration already: "
        "not trained again"
    )
    candidate = with_facts(settings, trained)
    return TrainOutcome(candidate=candidate, trained_now=False, best_epoch=None, history=(), timings_s={})


@task(name="begin run", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def begin(request: TrainRequest, settings: Settings, flow_run_id: str) -> TrainingJob:
    """Open the MLflow run of a training, and write down what it needs."""
    # It loads torch while MLflow is loaded here, where the command has not started it before.
    torch_process()
    version = newest_dataset(settings, request.dataset)
    config = request.training
    parameters = canonical(config) | {"dataset.digest": version.digest, "spec": version.spec.digest}
    name = f"{config.network} {version.digest[:8]}"
    key, tags = {"training.key": training_key(version, config)}, {FLOW_RUN_TAG: flow_run_id}
    stopped = stopped_run(settings, request.dataset, key)
    # What other code began this one may not be able to go on with.
    if stopped and not request.again and stopped.data.tags.get("git.commit") == commit():
        run_id = str(stopped.info.run_id)
        done = len(read_history(run_folder(settings, run_id)))
        print(
            f"Goes on with the training of {request.dataset!r} that was stopped: {done} of {config.epochs} epochs "
            "are done"
        )
        reopen(settings, run_id, tags)
    else:
        if stopped:
            reason = "--again asks for it" if request.again else "it was begun by another commit"
            print(f"Starts the training of {request.dataset!r} that was stopped anew: {reason}")
        run_id = start_run(settings, request.dataset, name, parameters, key | tags)
    with failing_run(settings, run_id):
        log_dataset(settings, run_id, version, "training")
    job = TrainingJob(
        **settings.dataset_access,
        dataset=request.dataset,
        digest=version.digest,
        train=canonical(config),
        run_folder=str(run_folder(settings, run_id)),
        run_id=run_id,
        flow_run_id=flow_run_id,
    )
    if config.start.weights:
        with failing_run(settings, run_id):
            for line in torch_process().call(CHECK_START, count=1, job=asdict(job)):
                print(line)
    return job


@task(name="fit", cache_policy=NO_CACHE)
def fit_model(job: TrainingJob, settings: Settings) -> FitOutcome:
    """Fit here, or on the Ray cluster; both start lost workers again, so Prefect does not retry this."""
    with failing_run(settings, job.run_id):
        run = fit_on_cluster if settings.ray_address else fit
        return run(job, settings, log_of(job.dataset), show=page_bar("training-progress"))


@task(name="register candidate", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def finish(job: TrainingJob, outcome: FitOutcome, settings: Settings) -> TrainOutcome:
    """Export the best epoch, register it as the challenger, and close the run."""
    started = time.monotonic()
    print(f"Exporting and registering the best epoch of {job.dataset}, {outcome.best_epoch + 1}")
    version = open_version(open_store(job.store, Path(job.cache), job.cache_bytes), job.dataset, job.digest)
    with failing_run(settings, job.run_id):
        candidate = make_candidate(settings, job, outcome, version)
    end_torch()
    end_run(settings, job.run_id)
    timings = {**outcome.timings_s, "export and registration": time.monotonic() - started}
    return TrainOutcome(
        candidate=candidate,
        trained_now=True,
        best_epoch=outcome.best_epoch,
        history=outcome.history,
        timings_s=timings,
    )


def run_folder(settings: Settings, run_id: str) -> Path:
    """Return the folder of a training's history, checkpoints and outcome."""
    return settings.store_root / "training" / run_id


def find_trained(settings: Settings, version: DatasetVersion, config: TrainConfig) -> Registered | None:
    """Return the model that this very training made before, or None."""
    return newest(settings, version.head.dataset, **{"training.key": training_key(version, config)})


def make_candidate(
    settings: Settings, job: TrainingJob, outcome: FitOutcome, version: DatasetVersion
) -> Registered:
    """Export the best epoch, prove it equal to torch, calibrate it on validation examples, and register it."""
    config, path = TrainConfig.model_validate(job.train), job.folder / MODEL_FILE
    metadata = torch_process().call(
        "models.portable.export:export_best",
        job=asdict(job),
        checkpoint=outcome.checkpoint,
        target=str(path),
        graphs=str(settings.folder / "graphs"),
    )
    spec, objective = version.spec, objective_of(metadata)
    tags = model_tags(spec, config, objective) | {
        "dataset": version.head.dataset,
        "dataset.digest": version.digest,
        "training.key": training_key(version, config),
        "git.commit": commit(),
        **{
            f"{VALIDATION_TAG}{measure}": f"{row[f'val_{measure}']:.4f}"
            for row in outcome.history
            if row["epoch"] == outcome.best_epoch
            for measure in objective.epoch_titles
        },
        # Of a rule that was fitted after the epochs.
        **{key: value for key, value in metadata.items() if key.startswith(VALIDATION_TAG)},
    }
    if config.aggregate.is_on:
        units = Units.of_version(version, version.examples("val"), config.aggregate.over)
        print(f"In validation: {units.text(config.aggregate.rule)}")
    log_weights(settings, job.run_id, path.with_name(WEIGHTS_FILE))
    candidate = register(settings, version.head.dataset, job.run_id, onnx.load(path), tags)
    set_alias(settings, candidate, "challenger")
    return candidate


def stop(flow_run_id: str, settings: Settings) -> None:
    """End what a flow run left behind: its Ray job, and its MLflow runs that look as if they still went on."""
    stop_job_of(flow_run_id, settings)
    end_runs_tagged(settings, FLOW_RUN_TAG, flow_run_id)
