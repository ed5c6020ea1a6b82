"""Fit of one training: processes here or Ray Train's workers, metrics while they run, the best checkpoint."""

import contextvars
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imaging.errors import EnvironmentFault, RadloopError
from models.config import TrainConfig
from models.objectives.objective_catalog import objective_class
from models.torch_process import torch_process
from models.training.epoch_history import Progress, last_checkpoint, read_history, read_step
from models.training.process_group import ProcessDiedError
from services.mlflow.runs import epoch_metrics, logged_epochs, reachable, watched_run
from services.ray.jobs import run_step
from services.ray.room import BEAT_S, RoomWait
from services.settings import Settings

POLL_S = 0.5
LINE_EVERY_S = 30.0
"""Seconds between two lines of one epoch."""
Show = Callable[[float, str], None]
"""Takes percent and a line, and shows both in one place."""
TRAIN_HERE = "models.training.launch:train_here"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Parameters of a training as plain data: they travel to a cluster as JSON."""

    store: str
    cache: str
    cache_bytes: int
    dataset: str
    digest: str
    train: dict[str, Any]
    run_folder: str
    run_id: str
    flow_run_id: str

    @property
    def folder(self) -> Path:
        """The folder of the run's history, checkpoints and outcome, shared by all nodes."""
        return Path(self.run_folder)


@dataclass(frozen=True, kw_only=True)
class FitOutcome:
    """Checkpoint of the best epoch, and what every epoch measured."""

    checkpoint: str
    best_epoch: int
    history: tuple[Mapping[str, float], ...]
    timings_s: Mapping[str, float]


Launcher = Callable[[TrainingJob, TrainConfig, Callable[[str], None]], Path | None]
"""Trains; returns the folder of the newest checkpoint, which has the best epoch's weights beside its own."""


def on_this_machine(job: TrainingJob, config: TrainConfig, log: Callable[[str], None]) -> Path | None:
    """Train with processes of this machine; where one dies, all start again from the last checkpoint."""
    for left in reversed(range(config.max_failures + 1)):
        try:
            torch_process().call(TRAIN_HERE, count=config.workers, job=asdict(job))
            break
        except ProcessDiedError as error:
            if not left:
                raise
            log(f"{error}; the training goes on from its last checkpoint, restarts left: {left - 1}")
    return last_checkpoint(job.folder)


def on_ray(job: TrainingJob, config: TrainConfig, log: Callable[[str], None]) -> Path | None:
    """Train with workers of the Ray that this process has started or joined; Ray starts them again where one dies.

    Raises EnvironmentFault where there is no room for them for too long. Ray itself goes on waiting then, until the
    process ends.
    """
    fitting, room = ThreadPoolExecutor(1).submit(_trainer(job, config).fit), RoomWait(log)
    while not wait([fitting], BEAT_S).done:
        room.look()
    try:
        checkpoint = fitting.result().checkpoint
    except Exception as error:
        raise _fault_of_workers(error) or error from None
    return Path(checkpoint.path) if checkpoint else None


def fit(
    job: TrainingJob,
    settings: Settings,
    log: Callable[[str], None],
    train: Launcher = on_this_machine,
    show: Show | None = None,
) -> FitOutcome:
    """Train; the run's metrics arrive while it goes on, and `show` gets how far it is."""
    started = time.monotonic()
    config = TrainConfig.model_validate(job.train)
    # Those of a fit that was stopped, with which this one goes on.
    before = len(read_history(job.folder))
    reported = logged_epochs(settings, job.run_id) if before else 0
    with watched_run(settings, job.run_id), report_epochs(job, settings, log, reported, show):
        folder = train(job, config, log)
    if folder is None:
        raise EnvironmentFault(
            f"training {job.run_id} left no checkpoint in {job.run_folder}: is its disk full?"
        )
    history = read_history(job.folder)
    training_s = sum(row["seconds"] for row in history[before:])
    timings = {
        "workers' start and end": time.monotonic() - started - training_s,
        "first training step": history[0]["first_step_s"],
        "training": training_s,
    }
    return FitOutcome(
        checkpoint=str(folder),
        best_epoch=Progress.read(folder).best_epoch,
        history=tuple(history),
        timings_s=timings,
    )


def fit_on_cluster(
    job: TrainingJob, settings: Settings, log: Callable[[str], None], show: Show | None = None
) -> FitOutcome:
    """Train as a job of the cluster at RADLOOP_RAY_ADDRESS, whose lines go to `log`.

    How far it is says its folder, which this machine sees: `show` gets it as from a fit here.
    """
    config = TrainConfig.model_validate(job.train)

    def look() -> None:
        # The disk that all nodes share may be away for a while.
        with suppress(OSError, ValueError):
            state = progress_of(job, config)
            if state and show:
                show(*state)

    with _looking(look):
        outcome = run_step("train", json.dumps(asdict(job)), job.folder, job.flow_run_id, settings, log)
    return FitOutcome(**json.loads(outcome.read_text()))


@contextmanager
def _looking(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` now and then while the block lasts, and once at its end."""
    done = threading.Event()

    def follow() -> None:
        last_look = False
        while not last_look:
            last_look = done.wait(POLL_S)
            look()

    # In a copy of the context, so that lines reach the log of the flow run, and its bar the page.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(follow,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def report_epochs(
    job: TrainingJob,
    settings: Settings,
    log: Callable[[str], None],
    reported: int = 0,
    show: Show | None = None,
) -> Iterator[None]:
    """Log the metrics of each finished epoch to MLflow and a line to `log`, while the block lasts."""
    reporter = EpochReporter(job, settings, log, reported, show)

    def look() -> None:
        # A tracking server may be away for a while: what it missed is sent at the next look.
        with suppress(RadloopError):
            reporter.report_new()
            reporter.report_step()

    with _looking(look):
        yield
    # Nothing is left to report, unless the server is still away: then the fit fails.
    reporter.report_new()


@dataclass
class EpochReporter:
    """Report of a run's epochs, each once."""

    job: TrainingJob
    settings: Settings
    log: Callable[[str], None]
    reported: int = 0
    show: Show | None = None
    logged_at: float = field(default_factory=time.monotonic)
    """When the last line was logged."""

    def report_new(self) -> None:
        """Report the epochs that were finished since the last time."""
        fresh = read_history(self.job.folder)[self.reported :]
        if not fresh:
            return
        with reachable(self.settings) as client:
            client.log_batch(self.job.run_id, metrics=epoch_metrics(fresh))
        self.reported += len(fresh)
        config = TrainConfig.model_validate(self.job.train)
        for row in fresh:
            self._write(*_after_epoch(row, config))

    def report_step(self) -> None:
        """Show how far the epoch is that goes on; of a long one a line is logged now and then."""
        step = read_step(self.job.folder)
        if step.get("epoch") == self.reported:
            config = TrainConfig.model_validate(self.job.train)
            self._write(*_within_epoch(step, config), every_s=LINE_EVERY_S)

    def _write(self, percent: float, line: str, every_s: float = 0.0) -> None:
        now = time.monotonic()
        if now - self.logged_at >= every_s:
            self.logged_at = now
            self.log(line)
        if self.show:
            self.show(percent, line)


def progress_of(job: TrainingJob, config: TrainConfig) -> tuple[float, str] | None:
    """Return how far a training is, in percent and as a line, by what is in its folder; None before the first step."""
    history, step = read_history(job.folder), read_step(job.folder)
    if step.get("epoch") == len(history):
        return _within_epoch(step, config)
    return _after_epoch(history[-1], config) if history else None


def _within_epoch(step: Mapping[str, Any], config: TrainConfig) -> tuple[float, str]:
    done = step["epoch"] * step["steps"] + step["step"]
    left = config.epochs * step["steps"] - done
    return 100 * done / (done + left), (
        f"epoch {step['epoch'] + 1}/{config.epochs}  step {step['step']}/{step['steps']}  "
        f"{step['images_per_s']:.0f} images/s, "
        f"at most {left * config.batch_size / max(step['images_per_s'], 1e-9):.0f} s left"
    )


def _after_epoch(row: Mapping[str, float], config: TrainConfig) -> tuple[float, str]:
    name, title = next(iter(objective_class(config.objective).epoch_titles.items()))
    left_s = (config.epochs - 1 - row["epoch"]) * row["seconds"]
    return 100 * (row["epoch"] + 1) / config.epochs, (
        f"epoch {row['epoch'] + 1:.0f}/{config.epochs}  loss {row['train_loss']:.3f}  "
        f"val loss {row['val_loss']:.3f}  val {title} {row[f'val_{name}']:.3f}  "
        f"{row['images_per_s']:.0f} images/s, at most {left_s:.0f} s left, "
        f"{row['waiting_share']:.1%} waiting for data, {row['memory_mb']:.0f} MB"
    )


def _fault_of_workers(error: Exception) -> RadloopError | None:
    """Return the fault with a message for a person that a worker of Ray Train has raised, or None."""
    for failure in getattr(error, "worker_failures", {}).values():
        raised = getattr(failure, "_base_exc", failure)
        if isinstance(raised, RadloopError):
            return raised
    return None


def _trainer(job: TrainingJob, config: TrainConfig) -> Any:
    import ray.train.torch

    from models.training.launch import train_loop

    return ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config=asdict(job),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=ray.cluster_resources().get("GPU", 0) >= config.workers,
        ),
        run_config=ray.train.RunConfig(
            name="fit",
            storage_path=job.run_folder,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
