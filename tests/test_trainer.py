"""Fit of one training: its epochs are reported while it runs, and a run that fails is marked as failed."""

import json
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from imaging.errors import EnvironmentFault, UserFault
from models.config import TrainConfig
from models.training.epoch_history import STEP, record
from models.training.process_group import ProcessDiedError
from services.datasets import newest_dataset
from services.flow_requests import TrainRequest
from services.mlflow.runs import failing_run, get_run, start_run
from services.ray import trainer
from services.ray.trainer import EpochReporter, TrainingJob, fit_on_cluster, report_epochs
from services.settings import Settings
from tasks import training
from tasks.training import FLOW_RUN_TAG, begin, known_candidate, stop
from tests.synthetic import register_bright, version_of


@pytest.fixture
def job(tracked: Settings, tmp_path: Path) -> TrainingJob:
    """Return a training that has its run in MLflow and has not begun."""
    run_id = start_run(tracked, "fitting", "run", {}, {FLOW_RUN_TAG: tmp_path.name})
    return TrainingJob(
        store=str(tmp_path),
        cache=str(tmp_path / "cache"),
        cache_bytes=10**9,
        dataset="d",
        digest="0",
        train=TrainConfig(epochs=3).model_dump(mode="json"),
        run_folder=str(tmp_path / "run"),
        run_id=run_id,
        flow_run_id=tmp_path.name,
    )


@pytest.fixture(autouse=True)
def short_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "POLL_S", 0.02)


def finish_epoch(job: TrainingJob, epoch: int) -> None:
    numbers = {"train_loss": 0.7, "val_loss": 0.6, "val_auroc": 0.75, "images_per_s": 100.0, "seconds": 2.0}
    numbers |= {"waiting_share": 0.0123, "memory_mb": 812.3}
    record(job.folder, {"epoch": epoch} | numbers)


def steps(settings: Settings, job: TrainingJob) -> list[int]:
    client = MlflowClient(settings.tracking_uri)
    return [metric.step for metric in client.get_metric_history(job.run_id, "val_auroc")]


def wait_until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen within 10 s")


def test_an_epoch_is_reported_while_the_training_goes_on(tracked: Settings, job: TrainingJob) -> None:
    lines: list[str] = []
    with report_epochs(job, tracked, lines.append):
        finish_epoch(job, 0)
        wait_until(lambda: lines)
    assert "epoch 1/3" in lines[0]
    assert "val AUROC 0.750  100 images/s, at most 4 s left, 1.2% waiting for data, 812 MB" in lines[0]


def test_how_far_a_long_epoch_is_is_shown_and_now_and_then_logged(
    tracked: Settings, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_epoch(job, 0)
    step = {"epoch": 1, "step": 5, "steps": 20, "images_per_s": 64.0}
    (job.folder / STEP).write_text(json.dumps(step))
    lines, shown = list[str](), list[tuple[float, str]]()
    reporter = EpochReporter(job, tracked, lines.append, 1, lambda *one: shown.append(one))
    line = "epoch 2/3  step 5/20  64 images/s, at most 18 s left"
    reporter.report_step()
    assert (lines, shown) == ([], [(pytest.approx(100 * 25 / 60), line)])
    monkeypatch.setattr(trainer, "LINE_EVERY_S", 0.0)
    reporter.report_step()
    assert lines == [line]


def test_how_far_a_training_on_a_cluster_is_is_shown_by_its_folder(
    tracked: Settings, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list[tuple[float, str]]()

    def cluster(step: str, *_: Any) -> Path:
        finish_epoch(job, 0)
        wait_until(lambda: shown)
        given = {"epoch": 1, "step": 5, "steps": 20, "images_per_s": 64.0}
        (job.folder / STEP).write_text(json.dumps(given))
        outcome = {"checkpoint": "c", "best_epoch": 0, "history": [], "timings_s": {}}
        (job.folder / "outcome.json").write_text(json.dumps(outcome))
        return job.folder / "outcome.json"

    monkeypatch.setattr(trainer, "run_step", cluster)
    assert fit_on_cluster(job, tracked, print, lambda *one: shown.append(one)).checkpoint == "c"
    assert shown[0][0] == pytest.approx(100 / 3)
    assert shown[0][1].startswith("epoch 1/3  loss")
    assert shown[-1] == (pytest.approx(100 * 25 / 60), "epoch 2/3  step 5/20  64 images/s, at most 18 s left")


def test_the_step_of_an_epoch_that_is_done_is_not_shown(tracked: Settings, job: TrainingJob) -> None:
    (job.folder / STEP).parent.mkdir(parents=True)
    (job.folder / STEP).write_text(json.dumps({"epoch": 0, "step": 5, "steps": 20, "images_per_s": 64.0}))
    EpochReporter(job, tracked, print, 1, lambda *_: pytest.fail("shown")).report_step()


def test_the_fault_of_a_worker_is_the_one_that_is_raised(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Ray's WorkerGroupError and UserExceptionWithTraceback are: the fault by rank, in another exception.
    wrapped = RuntimeError("traceback")
    wrapped._base_exc = UserFault("the loss is not finite")  # type: ignore[attr-defined]
    failed = RuntimeError("Training failed due to worker errors")
    failed.worker_failures = {1: wrapped}  # type: ignore[attr-defined]

    class Trainer:
        def fit(self) -> None:
            raise failed

    monkeypatch.setattr(trainer, "_trainer", lambda job, config: Trainer())
    with pytest.raises(UserFault, match="not finite"):
        trainer.on_ray(job, TrainConfig(), print)


def test_every_epoch_is_reported_and_logged_once(tracked: Settings, job: TrainingJob) -> None:
    lines: list[str] = []
    with report_epochs(job, tracked, lines.append):
        for epoch in range(3):
            finish_epoch(job, epoch)
            wait_until(lambda: len(lines) == epoch + 1)  # noqa: B023
    assert (len(lines), steps(tracked, job)) == (3, [1, 2, 3])


def test_the_last_epochs_are_not_lost(tracked: Settings, job: TrainingJob) -> None:
    with report_epochs(job, tracked, print):
        pass
    with report_epochs(job, tracked, print):
        finish_epoch(job, 0)
        finish_epoch(job, 1)
    assert steps(tracked, job) == [1, 2]


def away_for(monkeypatch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """Let the tracking server be away for some calls; return the list of the calls so far."""
    whole, made = trainer.reachable, []

    @contextmanager
    def sometimes(settings: Settings) -> Any:
        made.append(1)
        if len(made) <= calls:
            raise EnvironmentFault("the MLflow server does not answer")
        with whole(settings) as client:
            yield client

    monkeypatch.setattr(trainer, "reachable", sometimes)
    return made


def test_epochs_that_a_server_missed_are_logged_when_it_is_back(
    tracked: Settings, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = away_for(monkeypatch, 3)
    with report_epochs(job, tracked, print):
        finish_epoch(job, 0)
        wait_until(lambda: len(made) > 3)
    assert steps(tracked, job) == [1]


def test_a_server_that_stays_away_fails_the_fit(
    tracked: Settings, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    away_for(monkeypatch, 10_000)
    with pytest.raises(EnvironmentFault, match="does not answer"), report_epochs(job, tracked, print):
        finish_epoch(job, 0)


def test_a_failure_of_the_training_is_the_one_that_is_raised(tracked: Settings, job: TrainingJob) -> None:
    with pytest.raises(ZeroDivisionError), report_epochs(job, tracked, print):
        finish_epoch(job, 0)
        raise ZeroDivisionError
    assert steps(tracked, job) == [1]


class DyingProcess:
    """What a process with torch answers where some of its forks are killed."""

    def __init__(self, deaths: int) -> None:
        self.deaths, self.calls = deaths, 0

    def call(self, function: str, *, count: int, job: dict[str, Any]) -> None:
        self.calls += 1
        if self.calls <= self.deaths:
            raise ProcessDiedError(f"process 1 of {count} was killed")


def train_with(process: DyingProcess, job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train with at most two restarts; return the lines of the log."""
    monkeypatch.setattr(trainer, "torch_process", lambda: process)
    lines = list[str]()
    trainer.on_this_machine(job, TrainConfig(max_failures=2, workers=2), lines.append)
    return lines


def test_a_training_goes_on_after_as_many_deaths_as_it_may(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = train_with(process := DyingProcess(deaths=2), job, monkeypatch)
    assert (process.calls, len(lines)) == (3, 2)
    assert lines[1].startswith("process 1 of 2 was killed; the training goes on from its last checkpoint")


def test_one_death_more_fails_the_training(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    process = DyingProcess(deaths=3)
    with pytest.raises(ProcessDiedError):
        train_with(process, job, monkeypatch)
    assert process.calls == 3


def test_a_job_travels_as_json(job: TrainingJob) -> None:
    assert TrainingJob(**json.loads(json.dumps(asdict(job)))) == job


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_fails_is_failed_and_one_that_is_stopped_is_killed(
    tracked: Settings, job: TrainingJob, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), failing_run(tracked, job.run_id):
        raise error
    assert get_run(tracked, job.run_id).info.status == status


def test_a_run_that_does_not_fail_is_left_open(tracked: Settings, job: TrainingJob) -> None:
    with failing_run(tracked, job.run_id):
        pass
    assert get_run(tracked, job.run_id).info.status == "RUNNING"


def test_what_a_flow_left_behind_is_ended(tracked: Settings, job: TrainingJob) -> None:
    stop(job.flow_run_id, tracked)
    assert get_run(tracked, job.run_id).info.status == "KILLED"


def test_a_training_begins_with_its_data_and_configuration(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "torch_process", lambda: None)
    version = version_of(tracked.folder_store, name="fitting-begin")
    request = TrainRequest.model_validate({"dataset": "fitting-begin", "training": {"seed": 7}})
    job = begin.fn(request, tracked, "flow")
    run = get_run(tracked, job.run_id)
    assert (job.digest, job.train["seed"], job.flow_run_id) == (version.digest, 7, "flow")
    assert (run.data.params["seed"], run.data.params["dataset.digest"]) == ("7", version.digest)
    assert run.inputs.dataset_inputs[0].dataset.digest == version.digest


def test_what_was_trained_before_is_matched_by_data_and_configuration(tracked: Settings) -> None:
    version = version_of(tracked.folder_store, name="fitting-known")
    known = register_bright(tracked, "fitting-known")
    request = TrainRequest(dataset="fitting-known", training=TrainConfig(network="small_cnn"))
    assert known_candidate.fn(request, tracked) is None
    key = f"{version.digest[:16]}-{request.training.digest}"
    MlflowClient(tracked.tracking_uri).set_model_version_tag(known.name, "1", "training.key", key)
    reused = known_candidate.fn(request, tracked)
    assert reused is not None
    assert (reused.candidate.version, reused.trained_now) == (1, False)
    assert known_candidate.fn(request.model_copy(update={"again": True}), tracked) is None


def test_a_dataset_that_is_not_there_is_refused_with_the_remedy(tracked: Settings) -> None:
    with pytest.raises(UserFault, match=r"no dataset 'fitting-none'.*run `radloop ingest` first"):
        newest_dataset(tracked, "fitting-none")
