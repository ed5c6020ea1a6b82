"""A worker holds its part of a run and gets its share of each global batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.config import AugmentConfig, TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples, normalise
from models.training.checkpoint import BEST, save
from models.training.precision import autocast
from models.training.ranks import Ranks
from models.training.worker import TrainData, Worker

CONFIG = TrainConfig(network="small_cnn", epochs=4, batch_size=10, workers=1)
STILL = AugmentConfig(shift_fraction=0, rotate_deg=0, scale=0, contrast=0, brightness=0)


@pytest.fixture
def data() -> TrainData:
    draw = np.random.default_rng(0)
    labels = (np.arange(30) % 3 == 0).astype(np.int64)
    rows = ArrayExamples(draw.integers(0, 256, (30, 16, 16), dtype=np.uint8), labels)
    return TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "lesion")))


def started(config: TrainConfig, data: TrainData, rank: int = 0, size: int = 1) -> Worker:
    worker = Worker.start(config, data, Ranks(), None)
    worker.ranks = Ranks(rank=rank, size=size)
    return worker


@pytest.mark.slow
def test_shares_of_all_ranks_are_the_batch_of_one(data: TrainData) -> None:
    batch = next(started(CONFIG, data).batches(0))
    images, targets = started(CONFIG, data).load(0, 0, batch)
    shares = [started(CONFIG, data, rank, 3).load(0, 0, batch) for rank in range(3)]
    assert torch.allclose(torch.cat([share[0] for share in shares]), images, atol=1e-5)
    assert torch.equal(torch.cat([share[1]["labels"] for share in shares]), targets["labels"])


def test_labels_belong_to_their_images(data: TrainData) -> None:
    batch = np.array([4, 3, 9])
    _, targets = started(CONFIG, data).load(0, 0, batch)
    assert targets["labels"].tolist() == data.train.labels[batch].tolist()


@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 0)])
def test_an_image_is_varied_anew_each_time(data: TrainData, epoch: int, step: int) -> None:
    worker, batch = started(CONFIG, data), np.arange(10)
    assert not torch.allclose(worker.load(0, 0, batch)[0], worker.load(epoch, step, batch)[0], atol=0.1)


def test_without_variation_loading_is_normalising(data: TrainData) -> None:
    worker, batch = started(CONFIG.model_copy(update={"augment": STILL}), data), np.arange(10)
    wanted = normalise(torch.from_numpy(data.train.images[:10])[:, None].float())
    assert torch.allclose(worker.load(0, 0, batch)[0], wanted, atol=1e-4)


def test_unvaried_images_equal_the_images_of_prediction(data: TrainData) -> None:
    wanted = normalise(torch.from_numpy(data.train.images[5:10])[:, None].float())
    assert torch.equal(started(CONFIG, data, rank=1, size=2).load_unvaried(np.arange(10)), wanted)


def test_an_epoch_has_as_many_steps_as_full_batches(data: TrainData) -> None:
    worker = started(CONFIG, data)
    assert worker.steps == len(list(worker.batches(0))) == 3


def test_the_learning_rate_spans_all_epochs(data: TrainData) -> None:
    worker = started(CONFIG, data)
    rates = [worker.learning_rate(epoch, step) for epoch in range(4) for step in range(3)]
    assert max(rates) > 0.9 * CONFIG.optimizer.learning_rate
    assert rates[-1] < 0.01 * CONFIG.optimizer.learning_rate
    assert len(set(rates)) > 6


def test_convolutions_are_laid_out_channels_last(data: TrainData) -> None:
    kernel = started(CONFIG, data).network.get_parameter("3.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_classes_weigh_the_same_when_balanced(data: TrainData) -> None:
    weights = started(CONFIG, data).weights
    sums = [weights[data.train.labels == label].sum() for label in (0, 1)]
    assert sums[0] == pytest.approx(sums[1])


@pytest.mark.parametrize(("precision", "reduced"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_processors_compute_in_fp32_unless_bf16_is_chosen(
    data: TrainData, precision: str, reduced: bool
) -> None:
    worker = started(CONFIG.model_copy(update={"precision": precision}), data)
    with autocast(worker.config, worker.ranks.device):
        logits = worker.network(torch.zeros(1, 1, 16, 16))
    assert (logits.dtype == torch.bfloat16) is reduced


def test_the_average_starts_as_the_network_and_asks_for_no_gradient(data: TrainData) -> None:
    worker = started(CONFIG, data)
    pairs = zip(worker.network.parameters(), worker.average.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not any(parameter.requires_grad for parameter in worker.average.network.parameters())


def test_a_worker_goes_on_from_a_checkpoint(data: TrainData, tmp_path: Path) -> None:
    first = started(CONFIG, data)
    torch.nn.init.constant_(first.network.get_parameter("0.weight"), 0.25)
    progress, best = first.progress.after((0.5,)), first.network.state_dict()
    save(tmp_path, progress, first.network, first.average.network, best, first.optimizer)
    second = Worker.start(CONFIG, data, Ranks(), tmp_path)
    assert (second.progress, set(second.best)) == (progress, set(best))
    assert bool((second.network.get_parameter("0.weight") == 0.25).all())
    assert (tmp_path / BEST).is_file()


def test_another_network_cannot_take_over_a_half_done_run(data: TrainData, tmp_path: Path) -> None:
    first = started(CONFIG, data)
    save(tmp_path, first.progress, first.network, first.average.network, {}, first.optimizer)
    other = CONFIG.model_copy(update={"network": "residual_small"})
    with pytest.raises(RuntimeError, match="Missing key"):
        Worker.start(other, data, Ranks(), tmp_path)
