"""Recovery of a training after the death of a worker: it goes on from the last checkpoint, in the same MLflow run."""

import os
import signal
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from imaging.store.folder_store import FolderStore
from models import torch_process
from models.config import TrainConfig
from models.training.epoch_history import read_history
from services.mlflow.runs import start_run
from services.ray.cluster import training_ray
from services.ray.trainer import FitOutcome, TrainingJob, fit, on_ray, on_this_machine
from services.settings import Settings, activate
from tests.conftest import fresh_environment, until
from tests.synthetic import version_of

CONFIG = TrainConfig(network="small_cnn", epochs=20, batch_size=8, patience=100, max_failures=1)

EPOCHS_BEFORE = 5


@dataclass(frozen=True, kw_only=True)
class Survived:
    """A fit of which one worker was killed after some epochs."""

    settings: Settings
    run_id: str
    outcome: FitOutcome
    before: list[Mapping[str, float]]


def kill_a_worker(folder: Path, seen: list[Mapping[str, float]]) -> None:
    """Wait for some epochs, remember them, and kill one of the processes that this one lets train.

    A checkpoint counts once Ray's controller has taken it in, which is an epoch or two after it was written.
    """
    until(lambda: len(read_history(folder)) >= EPOCHS_BEFORE, "the fifth epoch")
    seen += read_history(folder)
    family = psutil.Process().children(recursive=True)
    commands = {process.pid: " ".join(process.cmdline()) for process in family}
    workers = [pid for pid, command in commands.items() if "RayTrainWorker" in command] or [
        process.pid
        for process in family
        if torch_process.__name__ in commands[process.pid] and process.ppid() != os.getpid()
    ]
    os.kill(workers[0], signal.SIGKILL)


@pytest.fixture(scope="module", params=[on_this_machine, on_ray], ids=["here", "on Ray"])
def survived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Survived:
    home = tmp_path_factory.mktemp("recovery")
    with fresh_environment():
        settings = activate(home)
        version = version_of(FolderStore(settings.store_root), patients=60)
        run_id = start_run(settings, "recovery", "run", {}, {})
        job = TrainingJob(
            store=settings.dataset_place,
            cache=str(settings.cache),
            cache_bytes=settings.cache_bytes,
            dataset="d",
            digest=version.digest,
            train=CONFIG.model_dump(mode="json"),
            run_folder=str(home / "run"),
            run_id=run_id,
            flow_run_id="none",
        )
        before: list[Mapping[str, float]] = []
        killer = threading.Thread(target=kill_a_worker, args=(job.folder, before))
        killer.start()
        with training_ray(CONFIG.workers) if request.param is on_ray else nullcontext():
            outcome = fit(job, settings, log=lambda _: None, train=request.param)
        torch_process.end_torch()
        killer.join()
        return Survived(settings=settings, run_id=run_id, outcome=outcome, before=before)


@pytest.mark.slow
def test_every_epoch_is_in_the_history_once(survived: Survived) -> None:
    assert [row["epoch"] for row in survived.outcome.history] == list(range(CONFIG.epochs))


@pytest.mark.slow
def test_the_epochs_before_the_death_are_not_trained_again(survived: Survived) -> None:
    # The seconds of an epoch are never the same twice.
    assert list(survived.outcome.history[:2]) == survived.before[:2]


@pytest.mark.slow
def test_the_metrics_are_in_the_one_run(survived: Survived) -> None:
    client = MlflowClient(survived.settings.tracking_uri)
    experiment = client.get_experiment_by_name("recovery")
    assert experiment is not None
    assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [survived.run_id]
    steps = [metric.step for metric in client.get_metric_history(survived.run_id, "val_loss")]
    assert sorted(set(steps)) == list(range(1, CONFIG.epochs + 1))
