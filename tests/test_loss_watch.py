"""A loss that is not finite stops the run with the keys of the examples; overflows of fp16 are skipped steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imaging.errors import UserFault
from models.config import OptimizerConfig, TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples
from models.training.launch import keep_last
from models.training.loop import fit
from models.training.loss_watch import CHECK_STEPS, LossWatch
from models.training.ranks import Ranks
from models.training.worker import TrainData, Worker

CONFIG = TrainConfig(network="small_cnn", epochs=3, batch_size=4, workers=1)


@dataclass(frozen=True, slots=True)
class KeyedExamples(ArrayExamples):
    """Examples with pseudonyms, as a dataset has."""

    instance_keys: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, np.str_))


def keyed(count: int = 12) -> TrainData:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (count, 8, 8), dtype=np.uint8), np.arange(count) % 2
    keys = np.array([f"key{number}" for number in range(count)])
    rows = KeyedExamples(images, labels, instance_keys=keys)
    return TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "lesion")))


def watch(**of_worker: Any) -> LossWatch:
    worker = Worker.start(CONFIG, keyed(), Ranks(), None)
    for name, value in of_worker.items():
        setattr(worker, name, value)
    return LossWatch(worker)


def feed(watched: LossWatch, losses: list[float]) -> None:
    for step, loss in enumerate(losses):
        watched.add(0, step, np.array([step % 12, 11]), torch.tensor(loss))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_loss_that_is_not_finite_names_its_examples(bad: float) -> None:
    losses = [0.7] * CHECK_STEPS
    losses[3:5] = [bad, bad]
    with pytest.raises(
        UserFault, match=r"not finite in epoch 1, step 4, with the examples key3, key11;.*no checkpoint yet"
    ):
        feed(watch(), losses)


def test_an_epoch_shorter_than_a_look_is_looked_at_in_the_end() -> None:
    feed(watched := watch(), [0.7, math.nan])
    with pytest.raises(UserFault, match="step 2, with the examples key1, key11"):
        watched.end_epoch()


@pytest.mark.parametrize("steps", [1, CHECK_STEPS, 2 * CHECK_STEPS + 1])
def test_finite_losses_pass(steps: int) -> None:
    feed(watched := watch(), [0.7] * steps)
    watched.end_epoch()
    assert watched.recent == []


@pytest.mark.parametrize("steps", [1, CHECK_STEPS])
def test_weights_that_are_not_finite_after_a_finite_loss_stop_the_run(steps: int) -> None:
    feed(watched := watch(), [0.7] * steps)
    with torch.no_grad():
        next(watched.worker.network.parameters()).fill_(math.inf)
    with pytest.raises(UserFault, match=f"the weights are not finite after epoch 1, step {steps},"):
        watched.end_epoch()


def test_many_examples_are_counted() -> None:
    watched = watch()
    watched.add(1, 0, np.arange(12), torch.tensor(math.nan))
    with pytest.raises(UserFault, match=r"key0, .*, key7 and 4 more; the checkpoint of epoch 1 is kept"):
        watched.end_epoch()


@pytest.mark.parametrize(("overflows", "stops"), [(CHECK_STEPS - 1, False), (CHECK_STEPS, True)])
def test_with_a_scaler_only_overflows_in_a_row_stop_the_run(overflows: int, stops: bool) -> None:
    watched = watch(scaler=torch.amp.GradScaler("cpu"))
    losses = [0.7] * (CHECK_STEPS - overflows) + [math.inf] * overflows
    if stops:
        with pytest.raises(UserFault, match="not finite in epoch 1, step 1"):
            feed(watched, losses)
    else:
        feed(watched, losses)
        watched.end_epoch()


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Worker.learning_rate
    monkeypatch.setattr(
        Worker, "learning_rate", lambda self, epoch, step: 1e30 if epoch == 1 else plain(self, epoch, step)
    )

    def report(metrics: Mapping[str, float], folder: Path | None) -> None:
        keep_last(tmp_path, metrics, folder)

    config = CONFIG.model_copy(
        update={"optimizer": OptimizerConfig(name="sgd", learning_rate=1e-3, momentum=0)}
    )
    with pytest.raises(UserFault, match=r"not finite.* epoch 2, .*the checkpoint of epoch 1 is kept"):
        fit(config, keyed(), Ranks(), tmp_path, report)
    assert '"epochs": 1' in (tmp_path / "checkpoint" / "progress.json").read_text()


class FirstOfTwo(Ranks):
    """The first of two processes; the losses of the other are not finite in its second step."""

    def total(self, values: torch.Tensor) -> torch.Tensor:
        values[1, 1] = 1
        return values


def test_the_rank_with_the_bad_loss_names_its_examples() -> None:
    watched = watch(ranks=FirstOfTwo(size=2))
    for step, first in enumerate((0, 4, 8)):
        # The weights are spoilt for all in the step after.
        loss = torch.tensor(math.nan if step == 2 else 0.7)
        watched.add(0, step, np.arange(first, first + 4), loss)
    with pytest.raises(UserFault, match="epoch 1, step 2, with the examples key6, key7;"):
        watched.end_epoch()
