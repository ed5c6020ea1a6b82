"""Search: trials run side by side, each a run in MLflow below that of the search; validation alone decides."""

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from imaging.errors import EnvironmentFault
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.search_space import SearchConfig
from models.training.epoch_history import record
from services.mlflow.runs import reachable, start_run
from services.open_runs import FLOW_RUN_TAG
from services.ray import search as module
from services.ray.jobs import JOB_FILE, OUTCOME_FILE
from services.ray.search import PARENT_TAG, SearchJob, Trial, search_here, search_on_cluster
from services.settings import Settings
from tasks import cluster_jobs
from tasks.search import best_of
from tests.synthetic import version_of

CONFIG = TrainConfig(network="small_cnn", epochs=2, batch_size=8, workers=1)


def trial(*merit: float) -> Trial:
    return Trial(config=CONFIG, history=(), merit=merit or None)


def test_the_best_epoch_of_all_trials_decides() -> None:
    assert best_of([trial(0.7, -0.5), trial(0.9, -0.3), trial(0.8, -0.1)]) == 1


def test_between_equal_measures_the_loss_decides_and_then_the_order() -> None:
    assert best_of([trial(0.9, -0.5), trial(0.9, -0.3), trial(0.9, -0.3)]) == 1


def test_a_trial_that_failed_is_never_the_best() -> None:
    assert best_of([trial(), trial(0.1, -3)]) == 1


def job_of(settings: Settings, folder: Path, *trials: TrainConfig) -> SearchJob:
    version = version_of(settings.folder_store, name="searched")
    return SearchJob(
        job={**settings.dataset_access, "dataset": "searched", "digest": version.digest},
        trials=trials,
        folder=folder,
        run_id=start_run(settings, "searched", "search", {}, {}),
        dataset="searched",
        tags={FLOW_RUN_TAG: "flow"},
    )


def test_a_search_of_which_no_trial_ends_an_epoch_is_a_fault(
    tracked: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*_: Any) -> dict[int, str]:
        return {0: "no memory"}

    monkeypatch.setattr(module, "_tuned", failed)
    monkeypatch.setattr(module, "local_ray", nullcontext)
    job = job_of(tracked, tmp_path, CONFIG)
    objective = Classification(classes=("dark", "bright"))
    with pytest.raises(EnvironmentFault, match="not one of 1 trials has finished an epoch: no memory"):
        search_here(job, SearchConfig(), objective, tracked, print)


def finished(job: SearchJob, number: int, *aurocs: float) -> None:
    for epoch, auroc in enumerate(aurocs):
        row = {"epoch": epoch, "train_loss": 1.0, "val_loss": 1 - auroc, "val_auroc": auroc}
        record(job.folder_of(number), row)


@pytest.mark.parametrize(("measure", "best"), [("auroc", 0), ("last", 1)])
def test_of_trainings_that_take_their_last_epoch_the_last_one_counts(
    tracked: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: str, best: int
) -> None:
    config = CONFIG.model_copy(update={"measure": measure})
    job = job_of(tracked, tmp_path, config, config)
    finished(job, 0, 0.9, 0.6)
    finished(job, 1, 0.7, 0.8)
    monkeypatch.setattr(module, "_tuned", lambda *_: {})
    monkeypatch.setattr(module, "local_ray", nullcontext)
    objective = Classification(classes=("dark", "bright"))
    assert best_of(search_here(job, SearchConfig(), objective, tracked, lambda _: None)) == best


def test_trials_of_a_search_that_is_stopped_do_not_go_on_in_mlflow(
    tracked: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, objective = job_of(tracked, tmp_path, CONFIG), Classification(classes=("dark", "bright"))
    reported = threading.Event()

    def stopped(*_: Any) -> None:
        finished(job, 0, 0.9)
        assert reported.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_tuned", stopped)
    monkeypatch.setattr(module, "local_ray", nullcontext)
    with pytest.raises(KeyboardInterrupt):
        search_here(job, SearchConfig(), objective, tracked, lambda _: reported.set())
    with reachable(tracked) as client:
        experiment = client.get_experiment_by_name("searched").experiment_id
        (run,) = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{job.run_id}'")
    assert (run.info.status, run.data.tags[FLOW_RUN_TAG]) == ("KILLED", "flow")


def test_a_search_on_a_cluster_is_a_job_that_gets_the_trials_and_gives_their_outcomes(
    tracked: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tracked, tmp_path / "search", CONFIG, CONFIG.model_copy(update={"batch_size": 4}))
    given = list[Any]()

    def cluster(step: str, order: str, folder: Path, flow_run_id: str, *_: Any) -> Path:
        given.extend((step, folder, flow_run_id))
        folder.mkdir()
        (folder / JOB_FILE).write_text(order)
        cluster_jobs.tune(folder, tracked)
        return folder / OUTCOME_FILE

    def tuned(there: SearchJob, search: SearchConfig) -> dict[int, str]:
        given.extend((there.tags, search.keep))
        finished(there, 0, 0.5, 0.75)
        return {1: "no memory"}

    for name in ("watch_lease", "join_cluster", "await_processor"):
        monkeypatch.setattr(cluster_jobs, name, lambda *_, **__: 2)
    for name, stand_in in (("run_step", cluster), ("_tuned", tuned), ("local_ray", nullcontext)):
        monkeypatch.setattr(module, name, stand_in)
    outcomes = search_on_cluster(job, SearchConfig(trials=2, keep=4), tracked, "flow", print)
    assert given == ["tune", job.folder, "flow", job.tags, 4]
    assert [(trial.config, len(trial.history), trial.error) for trial in outcomes] == [
        (job.trials[0], 2, ""),
        (job.trials[1], 0, "no memory"),
    ]
    assert (outcomes[0].merit, outcomes[1].merit) == ((0.75, -0.25), None)


@pytest.mark.slow
def test_trials_train_side_by_side_and_the_worse_ones_are_stopped(tracked: Settings, tmp_path: Path) -> None:
    # Of a learning rate of 1e-9 nothing is learned; the last trial ends with an error of its own.
    still = CONFIG.optimizer.model_copy(update={"learning_rate": 1e-9})
    trials = [
        CONFIG.model_copy(update={"epochs": 4}),
        CONFIG.model_copy(update={"epochs": 4, "optimizer": still}),
        CONFIG.model_copy(update={"network": "no_network"}),
    ]
    job, lines = job_of(tracked, tmp_path, *trials), list[str]()
    objective = Classification(classes=("dark", "bright"))
    outcome = search_here(job, SearchConfig(least_epochs=1, keep=2), objective, tracked, lines.append)
    assert best_of(outcome) == 0
    assert len(outcome[0].history) == 4
    assert (outcome[2].merit, "no_network" in outcome[2].error) == (None, True)
    with reachable(tracked) as client:
        experiment = client.get_experiment_by_name("searched").experiment_id
        runs = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{job.run_id}'")
        steps = {
            run.info.run_name: len(client.get_metric_history(run.info.run_id, "val_loss")) for run in runs
        }
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert steps == {"trial 1": len(outcome[0].history), "trial 2": len(outcome[1].history)}
    assert any(line.startswith("trial 1/3: epoch 4/4  val loss") for line in lines)
