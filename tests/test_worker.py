"""A worker holds its part of a run and gets its share of each global batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from imaging.errors import UserFault
from models.config import LAST, AugmentConfig, LossConfig, OptimizerConfig, TrainConfig
from models.objectives.classification import Classification, class_weights
from models.training.batches import ArrayExamples, normalise
from models.training.checkpoint import BEST, save
from models.training.loop import advance, train_step
from models.training.precision import autocast
from models.training.ranks import Ranks
from models.training.safe_augment import safe_augment
from models.training.worker import TrainData, Worker

CONFIG = TrainConfig(network="small_cnn", epochs=4, batch_size=10, workers=1, precision="fp32")
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


@pytest.mark.parametrize(
    ("precision", "has_amx", "network", "reduced"),
    [
        ("auto", False, "small_cnn", False),
        ("auto", True, "small_cnn", True),
        ("auto", True, "mobilenet_v2", False),
        ("auto", True, "residual_small_3d", False),
        ("fp32", True, "small_cnn", False),
        ("bf16", False, "mobilenet_v2", True),
    ],
)
def test_processors_compute_in_bf16_where_it_is_faster_or_chosen(
    data: TrainData,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    has_amx: bool,
    network: str,
    reduced: bool,
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": has_amx})
    worker = started(CONFIG.model_copy(update={"precision": precision, "network": network}), data)
    with autocast(worker.computes_in, worker.ranks.device):
        logits = worker.network(torch.zeros(2, 1, 32, 32))
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


def with_optimizer(**values: object) -> TrainConfig:
    return CONFIG.model_copy(update={"optimizer": OptimizerConfig.model_validate(values)})


@pytest.mark.parametrize("passes", [2, 3, 5])
def test_gradients_of_passes_add_up_to_that_of_the_batch(data: TrainData, passes: int) -> None:
    # SGD, since Adam does not feel a gradient of the wrong size; 3 passes of 10 images are of 4, 3 and 3.
    weights, losses = [], []
    for accumulation in (1, passes):
        options = {"name": "sgd", "momentum": 0, "learning_rate": 0.5, "l1_penalty": 1e-3}
        worker = started(with_optimizer(**options, accumulation=accumulation), data)
        losses.append(train_step(worker, 1, 0, np.arange(10)).item())
        weights.append(torch.cat([p.detach().flatten() for p in worker.network.parameters()]))
    assert torch.allclose(*weights, atol=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_fewer_images_than_passes_are_refused_with_the_remedy(data: TrainData) -> None:
    few = ArrayExamples(data.train.images[:3], data.train.labels[:3])  # type: ignore[attr-defined]
    with pytest.raises(UserFault, match="3 training images for 1 workers with accumulation 4: lower one"):
        started(with_optimizer(accumulation=4), TrainData(train=few, val=few, objective=data.objective))


def test_a_clipped_gradient_moves_the_weights_by_its_norm(data: TrainData) -> None:
    options = {"name": "sgd", "momentum": 0, "weight_decay": 0, "schedule": "constant", "learning_rate": 1}
    worker = started(with_optimizer(**options, clip_norm=0.01), data)
    before = torch.cat([p.detach().flatten() for p in worker.network.parameters()])
    train_step(worker, 0, 0, np.arange(10))
    after = torch.cat([p.detach().flatten() for p in worker.network.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


MIXED = CONFIG.model_copy(update={"augment": STILL.model_copy(update={"mixup_alpha": 0.4})})


def test_mixup_mixes_images_and_losses_by_one_share(data: TrainData) -> None:
    worker, batch = started(MIXED, data), np.arange(10)
    ((images, ((kept, targets), (rest, others))),) = worker.passes(0, 0, batch)
    plain, _ = started(CONFIG.model_copy(update={"augment": STILL}), data).load(0, 0, batch)
    partner = (images[0] - kept * plain[0]) / rest
    assert kept + rest == pytest.approx(1)
    (number,) = (n for n in range(10) if torch.allclose(partner, plain[n], atol=1e-2))
    assert others["labels"][0] == targets["labels"][number]


def test_mixup_does_not_depend_on_the_number_of_workers(data: TrainData) -> None:
    batch = np.arange(10)
    ((whole, _),) = started(MIXED, data).passes(0, 0, batch)
    shares = [next(started(MIXED, data, rank, 3).passes(0, 0, batch))[0] for rank in range(3)]
    assert torch.allclose(torch.cat(shares), whole, atol=1e-4)


def test_a_step_of_mixup_has_the_mean_of_both_losses(data: TrainData) -> None:
    worker, batch = started(MIXED, data), np.arange(10)
    ((images, goals),) = worker.passes(0, 0, batch)
    weights = torch.from_numpy(class_weights(data.train.labels, 2, "balanced"))
    with torch.no_grad():
        logits = worker.network(images)
        losses = [
            share * torch.nn.functional.cross_entropy(logits, targets["labels"], weights, reduction="sum")
            for share, targets in goals
        ]
    wanted = sum(losses) / worker.weights[batch].sum()
    assert train_step(worker, 0, 0, batch).item() == pytest.approx(float(wanted), rel=1e-4)


def test_augmentation_follows_from_the_modality_where_it_is_asked_for(data: TrainData) -> None:
    slides = TrainData(train=data.train, val=data.val, objective=data.objective, modality="SM")
    assert started(CONFIG.model_copy(update={"augment": "modality"}), slides).augment == safe_augment("SM")
    assert started(CONFIG, slides).augment == CONFIG.augment


def test_sampled_classes_weigh_the_same_in_an_epoch_and_not_in_the_loss(data: TrainData) -> None:
    worker = started(CONFIG.model_copy(update={"class_weights": "sampled"}), data)
    drawn = np.concatenate(list(worker.batches(0)))
    assert np.bincount(data.train.labels[drawn]).tolist() == [15, 15]
    assert set(worker.weights) == {1}


def test_the_time_of_loading_is_counted(data: TrainData) -> None:
    worker = started(CONFIG, data)
    worker.load(0, 0, np.arange(10))
    assert 0 < worker.waited_s < 1


@pytest.mark.parametrize(("measure", "best"), [("auroc", 0), (LAST, 1)])
def test_the_last_epoch_may_be_the_best(data: TrainData, measure: str, best: int) -> None:
    worker = started(CONFIG.model_copy(update={"measure": measure}), data)
    for epoch, auroc in enumerate((0.9, 0.8)):
        advance(worker, {"epoch": epoch, "val_auroc": auroc, "val_loss": 0.5})
    assert worker.progress.best_epoch == best


def losses_of(loss: LossConfig, logits: torch.Tensor, labels: list[int]) -> float:
    train = ArrayExamples(np.zeros((4, 8, 8), np.uint8), np.array([0, 0, 0, 1]))
    objective = Classification(classes=("plain", "lesion")).fitted(train, TrainConfig(loss=loss))
    return objective.loss({"logits": logits}, {"labels": torch.tensor(labels)}).item()


LOGITS = torch.tensor([[2.0, -1.0], [0.3, 0.9]])


def test_the_focal_loss_is_that_of_its_paper() -> None:
    # Lin et al. 2017, (5): -alpha (1 - p)^gamma log p; here alpha is the class's weight, 2/3 and 2.
    probabilities = LOGITS.softmax(1).double()
    first, second = probabilities[0, 0], probabilities[1, 1]
    wanted = -(2 / 3) * (1 - first) ** 2 * first.log() - 2 * (1 - second) ** 2 * second.log()
    assert losses_of(LossConfig(focal_gamma=2), LOGITS, [0, 1]) == pytest.approx(wanted.item(), rel=1e-5)


def test_smoothed_labels_give_all_classes_a_share() -> None:
    # Szegedy et al. 2016, 7: (1 - e) of the true class and e / classes of each; torch weighs each class by its own.
    log_p = LOGITS.log_softmax(1)
    wanted = -(0.95 * log_p[0, 0] * 2 / 3 + 0.05 * log_p[0, 1] * 2)
    smooth = LossConfig(label_smoothing=0.1)
    assert losses_of(smooth, LOGITS[:1], [0]) == pytest.approx(wanted.item(), rel=1e-5)
