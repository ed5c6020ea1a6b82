"""Plan of a training: its size, what it needs, how long it will take, and what is there already; nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.config import StartConfig
from models.objectives.objective_catalog import check_training
from models.torch_process import end_torch, torch_process
from services.flow_requests import TrainRequest
from services.night_preview import trained_before
from services.preflight import newest_dataset
from services.settings import Settings

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
