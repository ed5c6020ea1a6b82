"""Search by Ray Tune: trials side by side, of which the worse ones are stopped early (ASHA)."""

import contextvars
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from imaging.cores import available_cores
from imaging.dataset.version.dataset_version import open_version
from imaging.errors import EnvironmentFault, RadloopError
from models.config import LAST, TrainConfig
from models.objectives.objective_catalog import objective_class
from models.objectives.protocol import Objective
from models.search_space import SearchConfig
from models.training.epoch_history import read_history
from models.training.trial import EPOCH, MERIT, run_trial
from services.mlflow.runs import end_run, epoch_metrics, reachable, start_run, status_after
from services.ray.cluster import local_ray
from services.ray.jobs import run_step
from services.settings import Settings

POLL_S = 1.0
PARENT_TAG = "mlflow.parentRunId"
"""MLflow's page shows a run with this tag below the other."""

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """Trials of a search; `job` is what `models.training.launch.opened` takes, but for the configuration.

    `tags` are those of the trials' runs in MLflow, by which they are ended where the search is killed.
    """

    job: Mapping[str, Any]
    trials: Sequence[TrainConfig]
    folder: Path
    run_id: str
    dataset: str
    tags: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the job as a JSON value, as it travels to a cluster."""
        trials = [trial.model_dump(mode="json") for trial in self.trials]
        return {**asdict(self), "trials": trials, "folder": str(self.folder)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SearchJob":
        """Return the job of a JSON value."""
        trials = [TrainConfig.model_validate(trial) for trial in value["trials"]]
        return cls(**{**value, "trials": trials, "folder": Path(value["folder"])})

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial's history."""
        return self.folder / f"trial-{number:03d}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Outcome of a trial: its epochs, and the merit of the one that it takes; None where it failed or never began."""

    config: TrainConfig
    history: tuple[Mapping[str, float], ...]
    merit: tuple[float, ...] | None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the trial as a JSON value."""
        return {**asdict(self), "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Trial":
        """Return the trial of a JSON value."""
        merit = value["merit"]
        return cls(
            config=TrainConfig.model_validate(value["config"]),
            history=tuple(value["history"]),
            merit=None if merit is None else tuple(merit),
            error=value["error"],
        )


def search_here(
    job: SearchJob, search: SearchConfig, objective: Objective, settings: Settings, log: Log
) -> tuple[Trial, ...]:
    """Run the trials on this machine, or on the cluster that this process has joined.

    Each is a run in MLflow below that of the search.

    Raises EnvironmentFault where not one of them has finished an epoch.
    """
    reporter, done = TrialReporter(job, settings, log), threading.Event()

    def follow() -> None:
        while not done.wait(POLL_S):
            # A tracking server may be away for a while: what it missed is sent at the next look.
            with suppress(RadloopError):
                reporter.report_new()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(follow,), daemon=True)
    with local_ray(available_cores()):
        thread.start()
        try:
            errors = _tuned(job, search)
        except BaseException as error:
            # The search's own fault is what a person must know.
            with suppress(RadloopError):
                reporter.end(dict.fromkeys(range(len(job.trials)), status_after(error)))
            raise
        finally:
            done.set()
            thread.join()
    reporter.report_new()
    reporter.end(dict.fromkeys(errors, "FAILED"))
    trials = tuple(
        _outcome(job, number, objective, errors.get(number, "")) for number in range(len(job.trials))
    )
    if all(trial.merit is None for trial in trials):
        raise EnvironmentFault(f"not one of {len(trials)} trials has finished an epoch: {trials[0].error}")
    return trials


def search_on_cluster(
    job: SearchJob, search: SearchConfig, settings: Settings, flow_run_id: str, log: Log
) -> tuple[Trial, ...]:
    """Run the trials as a job of the cluster at RADLOOP_RAY_ADDRESS, on all of its nodes; raise as `search_here`."""
    order = {"job": job.to_json(), "search": search.model_dump(mode="json")}
    outcome = run_step("tune", json.dumps(order), job.folder, flow_run_id, settings, log)
    return tuple(Trial.from_json(one) for one in json.loads(outcome.read_text()))


def search_of_job(order: Mapping[str, Any], settings: Settings, log: Log) -> list[dict[str, Any]]:
    """Run the trials that `search_on_cluster` has ordered, as the job there; return their outcomes as JSON values."""
    job, search = SearchJob.from_json(order["job"]), SearchConfig.model_validate(order["search"])
    version = open_version(settings.dataset_store, job.dataset, job.job["digest"])
    objective = objective_class(job.trials[0].objective).of_version(version)
    return [trial.to_json() for trial in search_here(job, search, objective, settings, log)]


def _tuned(job: SearchJob, search: SearchConfig) -> dict[int, str]:
    """Run the trials by Ray Tune; return the errors of those that failed, by number."""
    jobs = [
        {**job.job, "train": trial.model_dump(mode="json"), "run_folder": str(job.folder_of(number))}
        for number, trial in enumerate(job.trials)
    ]
    epochs = max(trial.epochs for trial in job.trials)
    scheduler = ASHAScheduler(
        time_attr=EPOCH,
        metric=MERIT,
        mode="max",
        max_t=epochs,
        grace_period=min(search.least_epochs, epochs),
        reduction_factor=search.keep,
    )
    one = {"cpu": 1, "gpu": 1} if ray.cluster_resources().get("GPU") else {"cpu": 1}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, one),
        param_space={"job": tune.grid_search(jobs)},
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(name="tune", storage_path=str(job.folder.resolve()), verbose=0),
    )
    # A grid gives its values in their order.
    results = tuner.fit()
    return {number: str(result.error) for number, result in enumerate(results) if result.error}


def _outcome(job: SearchJob, number: int, objective: Objective, error: str) -> Trial:
    config, history = job.trials[number], tuple(read_history(job.folder_of(number)))
    # Of a training that takes its last epoch, that one counts.
    rows = history[-1:] if config.measure == LAST else history
    merits = [objective.merit(row, config.compared_by) for row in rows]
    return Trial(config=config, history=history, merit=max(merits, default=None), error=error)


class TrialReporter:
    """Report of the trials' epochs to MLflow, each once, and of each trial's end."""

    def __init__(self, job: SearchJob, settings: Settings, log: Log) -> None:
        self._job, self._settings, self._log = job, settings, log
        self._runs: dict[int, str] = {}
        self._reported: dict[int, int] = {}

    def report_new(self) -> None:
        """Report the epochs that were finished since the last time; a trial's run begins with its first epoch."""
        for number, config in enumerate(self._job.trials):
            history = read_history(self._job.folder_of(number))
            done = self._reported.get(number, 0)
            if len(history) == done:
                continue
            if number not in self._runs:
                self._runs[number] = self._begin(number, config)
            with reachable(self._settings) as client:
                client.log_batch(self._runs[number], metrics=epoch_metrics(history[done:]))
            self._reported[number] = len(history)
            row = history[-1]
            name, title = next(iter(objective_class(config.objective).epoch_titles.items()))
            self._log(
                f"trial {number + 1}/{len(self._job.trials)}: epoch {row['epoch'] + 1:.0f}/{config.epochs}  "
                f"val loss {row['val_loss']:.3f}  val {title} {row[f'val_{name}']:.3f}"
            )

    def end(self, statuses: Mapping[int, str]) -> None:
        """Close the runs of all trials, by their number; those without a status have finished."""
        for number, run_id in self._runs.items():
            end_run(self._settings, run_id, statuses.get(number, "FINISHED"))

    def _begin(self, number: int, config: TrainConfig) -> str:
        parameters = config.model_dump(mode="json")
        tags = {**self._job.tags, PARENT_TAG: self._job.run_id, "kind": "trial"}
        return start_run(self._settings, self._job.dataset, f"trial {number + 1}", parameters, tags)
