"""Plan of a training: what it needs is measured on a few steps, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest

from imaging.errors import UserFault
from models.config import TrainConfig
from models.training import launch
from models.training.step_timing import time_steps
from services import training_plan
from services.flow_requests import TrainRequest
from services.settings import Settings
from services.training_plan import TrainingPlan, plan_training
from tests.synthetic import version_of

REQUEST = TrainRequest(
    dataset="chest", training=TrainConfig(network="small_cnn", workers=1, batch_size=4, epochs=3)
)


class HereProcess:
    """A process of torch, which is this one."""

    def call(self, _: str, *, count: int, job: dict[str, Any]) -> Any:
        assert count == 1
        return time_steps(0, 1, "", job)


@pytest.fixture
def planned(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> TrainingPlan:
    version_of(tracked.folder_store, name="chest")
    monkeypatch.setattr(training_plan, "torch_process", HereProcess)
    return plan_training(REQUEST, tracked)


def test_counts_are_of_the_dataset_and_the_network(planned: TrainingPlan) -> None:
    assert (planned.parameters, planned.epochs, planned.workers) == (105_346, 3, 1)
    assert planned.steps == planned.train // 4
    assert planned.train + planned.val < 30  # the locked patients are left out


def test_the_whole_time_is_that_of_steps_and_validations(planned: TrainingPlan) -> None:
    assert planned.step_s > 0 < planned.validation_s
    assert planned.total_s == pytest.approx(3 * (planned.steps * planned.step_s + planned.validation_s))


def test_a_training_that_was_done_is_named_and_skipped(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_of(tracked.folder_store, name="chest")
    monkeypatch.setattr(training_plan, "torch_process", HereProcess)
    monkeypatch.setattr(training_plan, "trained_before", lambda *_: [2, 7])
    planned = plan_training(REQUEST, tracked)
    assert planned.trained == 7
    assert "the training: version 7 has its result" in planned.skipped
    again = plan_training(REQUEST.model_copy(update={"again": True}), tracked)
    assert again.trained is None


def test_nothing_is_written(tracked: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version_of(tracked.folder_store, name="chest")
    monkeypatch.setattr(training_plan, "torch_process", HereProcess)
    before = sorted(tracked.folder.rglob("*"))
    plan_training(REQUEST, tracked)
    assert sorted(tracked.folder.rglob("*")) == before


def test_a_training_that_does_not_fit_is_refused_before_it_allocates(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = version_of(tracked.folder_store, name="chest")
    monkeypatch.setattr("models.training.footprint.free_bytes", lambda: 2**20)
    monkeypatch.setattr(launch, "fit", lambda *_: pytest.fail("it was begun"))
    job = {
        "store": str(tracked.folder_store.root), "cache": str(tmp_path), "cache_bytes": 2**30, "dataset": "chest",
        "digest": version.digest, "train": REQUEST.training.model_dump(), "run_folder": str(tmp_path),
    }  # fmt: skip
    with pytest.raises(UserFault, match="needs about"):
        launch.train_here(0, 1, "", job)
