"""Steps of a search: draw the trials, run them, and choose the best by the validation examples alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.config import TrainConfig
from models.objectives.objective_catalog import check_training, objective_class
from models.search_space import changes, draw_trials
from services.datasets import newest_dataset
from services.flow_requests import TuneRequest
from services.mlflow.runs import end_run, failing_run, log_dataset, start_run
from services.open_runs import FLOW_RUN_TAG
from services.prefect.progress import log_of
from services.ray.search import SearchJob, Trial, search_here, search_on_cluster
from services.settings import Settings
from services.start_weights import named_by_content
from tasks.evaluation import Evaluation
from tasks.promotion import Promotion
from tasks.training import TrainOutcome


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """Trials in the order of their drawing, their differences from the base, and the number of the best one."""

    dataset: str
    trials: Sequence[Trial]
    changes: Sequence[str]
    best: int
    seconds: float

    @property
    def config(self) -> TrainConfig:
        """The configuration of the best trial."""
        return self.trials[self.best].config


@dataclass(frozen=True, kw_only=True)
class TuneOutcome:
    """What was tried, the candidate of the best trial, and what the gate made of it."""

    search: SearchOutcome
    trained: TrainOutcome
    evaluation: Evaluation
    promotion: Promotion


@task(name="search", cache_policy=NO_CACHE)
def search_trainings(request: TuneRequest, settings: Settings, flow_run_id: str) -> SearchOutcome:
    """Train the trials side by side, and return which one was best on the validation examples."""
    started, version = time.monotonic(), newest_dataset(settings, request.dataset)
    base = named_by_content(request.training, settings)
    trials = draw_trials(base, request.search)
    for trial in trials:
        check_training(trial, version)
    objective = objective_class(base.objective).of_version(version)
    parameters = request.search.model_dump(mode="json") | {"dataset.digest": version.digest}
    tags = {FLOW_RUN_TAG: flow_run_id}
    name = f"search {version.digest[:8]}"
    run_id = start_run(settings, request.dataset, name, parameters, tags | {"kind": "search"})
    job = SearchJob(
        job={**settings.dataset_access, "dataset": request.dataset, "digest": version.digest},
        trials=trials,
        folder=settings.store_root / "training" / run_id,
        run_id=run_id,
        dataset=request.dataset,
        tags=tags,
    )
    with failing_run(settings, run_id):
        log_dataset(settings, run_id, version, "training")
        log = log_of(request.dataset)
        if settings.ray_address:
            outcomes = search_on_cluster(job, request.search, settings, flow_run_id, log)
        else:
            outcomes = search_here(job, request.search, objective, settings, log)
    end_run(settings, run_id)
    return SearchOutcome(
        dataset=request.dataset,
        trials=outcomes,
        changes=[changes(base, trial, request.search) for trial in trials],
        best=best_of(outcomes),
        seconds=time.monotonic() - started,
    )


def best_of(trials: Sequence[Trial]) -> int:
    """Return the number of the best trial; of equally good ones the first, which is nearest the base."""
    done = [number for number, trial in enumerate(trials) if trial.merit is not None]
    return max(done, key=lambda number: (trials[number].merit, -number))
