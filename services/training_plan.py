"""Plan of a training: its size, what it needs, how long it will take, and what is there already; nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from models.config import StartConfig, TrainConfig, training_key
from models.objectives.objective_catalog import check_training
from models.torch_process import end_torch, torch_process
from services.datasets import newest_dataset
from services.flow_requests import TrainRequest
from services.mlflow.registry_peek import peek_versions
from services.settings import Settings
from services.start_weights import named_by_content

TIME_STEPS = "models.training.step_timing:time_steps"


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a training would be; `trained` is the model version that it made before, None where it would train.

    `step_s` and `validation_s` were measured by as many processes as will train; `process_bytes` is an estimate, and
    `peak_bytes` what a process had while it was measured.
    """

    dataset: str
    digest: str
    network: str
    parameters: int
    train: int
    val: int
    workers: int
    process_bytes: int
    peak_bytes: int
    free_bytes: int
    epochs: int
    steps: int
    step_s: float
    validation_s: float
    trained: int | None
    skipped: Sequence[str]

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch."""
        return self.steps * self.step_s + self.validation_s

    @property
    def total_s(self) -> float:
        """Seconds of all epochs; patience may end it earlier."""
        return self.epochs * self.epoch_s


def plan_training(request: TrainRequest, settings: Settings) -> TrainingPlan:
    """Return the plan of a training on the newest version of a dataset.

    Raises UserFault where it cannot be trained on, or where there is too little memory.
    """
    version, config = newest_dataset(settings, request.dataset), request.training
    check_training(config, version)
    known = [] if request.again else trained_before(request.dataset, config, settings, version)
    # Weights to start from would have to be fetched, and change no time but that of `frozen`, which is less.
    timed = config.model_copy(update={"start": StartConfig()})
    job = {
        **settings.dataset_access,
        "dataset": request.dataset,
        "digest": version.digest,
        "train": timed.model_dump(mode="json"),
    }
    measured = torch_process().call(TIME_STEPS, count=config.workers, job=job)
    end_torch()
    skipped = ["listed files that were read before"]
    skipped += [f"the training: version {known[-1]} has its result"] if known else []
    skipped += ["tracing of the network's graph"] if any((settings.folder / "graphs").glob("*.onnx")) else []
    return TrainingPlan(
        dataset=request.dataset,
        digest=version.digest,
        network=config.network,
        workers=config.workers,
        epochs=config.epochs,
        trained=known[-1] if known else None,
        skipped=skipped,
        **measured,
    )


def trained_before(
    dataset: str, config: TrainConfig, settings: Settings, version: DatasetVersion
) -> list[int]:
    """Return the model versions that this very data and configuration made."""
    key = training_key(version, named_by_content(config, settings, keep=False))
    return peek_versions(settings, dataset, **{"training.key": key})


def will_train(request: TrainRequest, settings: Settings) -> bool:
    """Return whether a training would not be skipped."""
    version = newest_version(settings.dataset_store, request.dataset)
    if version is None:
        return False
    return request.again or not trained_before(request.dataset, request.training, settings, version)
