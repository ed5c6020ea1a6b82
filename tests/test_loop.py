"""The training loop learns, follows its configuration, and does not depend on how many workers share it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from imaging.errors import UserFault
from models.config import AugmentConfig, OptimizerConfig, TrainConfig
from models.objectives.classification import Classification, class_weights
from models.training.batches import ArrayExamples
from models.training.checkpoint import best_network
from models.training.epoch_history import read_history
from models.training.launch import launch
from models.training.loop import fit, train_step
from models.training.ranks import Ranks
from models.training.worker import TrainData, Worker

pytestmark = pytest.mark.slow

STILL = AugmentConfig(shift_fraction=0, rotate_deg=0, scale=0, contrast=0, brightness=0)
QUICK = TrainConfig(network="small_cnn", epochs=2, batch_size=16, workers=1, precision="fp32")


def spots(count: int, seed: int, size: int = 16) -> ArrayExamples:
    """Return noise, with a bright square in every third image, which is of class 1."""
    draw = np.random.default_rng(seed)
    images = draw.integers(40, 120, (count, size, size), dtype=np.uint8)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    images[labels == 1, 4:9, 5:10] += 90
    return ArrayExamples(images, labels)


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData(
        train=spots(96, 0), val=spots(33, 1), objective=Classification(classes=("plain", "lesion"))
    )


def train(config: TrainConfig, data: TrainData, folder: Path) -> list[dict[str, float]]:
    launch(config, data, folder)
    return read_history(folder)


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [("small_cnn", "adamw"), ("small_cnn", "sgd"), ("small_cnn", "muon"), ("residual_small", "adamw")],
)
def test_it_learns_to_see_a_bright_square(
    data: TrainData, tmp_path: Path, network: str, optimizer: str
) -> None:
    order = {"name": optimizer, "learning_rate": 0.05 if optimizer == "sgd" else 3e-3}
    config = TrainConfig.model_validate(
        {**QUICK.model_dump(), "network": network, "epochs": 6, "optimizer": order}
    )
    assert train(config, data, tmp_path)[-1]["val_auroc"] > 0.95


def test_one_worker_and_two_agree_at_the_same_global_batch(data: TrainData, tmp_path: Path) -> None:
    # SGD, because Adam does not feel a gradient of the wrong size; 15, because its halves differ. Passes that add up
    # their gradients change no more, and neither do mixup and clipping.
    weights, runs = [], {"alone": (1, 1), "together": (2, 1), "in passes": (2, 2)}
    augment = AugmentConfig(mixup_alpha=0.4)
    for name, (workers, passes) in runs.items():
        order = OptimizerConfig(
            name="sgd", learning_rate=0.03, l1_penalty=1e-3, clip_norm=3, accumulation=passes
        )
        new = {"workers": workers, "epochs": 3, "batch_size": 15, "optimizer": order, "augment": augment}
        launch(QUICK.model_copy(update=new), data, tmp_path / name)
        weights.append(load_file(tmp_path / name / "checkpoint" / "network.safetensors"))
    for name, alone in weights[0].items():
        assert torch.allclose(alone, weights[1][name], atol=1e-4), name
        assert torch.allclose(alone, weights[2][name], atol=1e-4), name
    alone, together, in_passes = (read_history(tmp_path / name) for name in runs)
    for row, other in zip(alone + alone, together + in_passes, strict=True):
        for measure in ("train_loss", "val_loss", "val_auroc", "val_accuracy"):
            assert row[measure] == pytest.approx(other[measure], abs=1e-3), measure


def test_the_same_seed_gives_the_same_bits(data: TrainData, tmp_path: Path) -> None:
    for name in ("first", "second"):
        launch(QUICK, data, tmp_path / name)
    first, second = (tmp_path / name / "checkpoint" / "best.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_other_weights(data: TrainData, tmp_path: Path) -> None:
    for seed in (0, 1):
        launch(QUICK.model_copy(update={"seed": seed}), data, tmp_path / str(seed))
    first, second = (tmp_path / str(seed) / "checkpoint" / "best.safetensors" for seed in (0, 1))
    assert first.read_bytes() != second.read_bytes()


def test_every_epoch_reports_its_measures(data: TrainData, tmp_path: Path) -> None:
    first, second = train(QUICK, data, tmp_path)
    expected = {"epoch", "train_loss", "val_loss", "val_auroc", "val_accuracy"}
    expected |= {"learning_rate", "seconds", "images_per_s", "waiting_share", "memory_mb"}
    assert set(second) == expected
    assert set(first) == expected | {"first_step_s"}


def test_there_is_one_report_an_epoch_with_a_checkpoint(data: TrainData, tmp_path: Path) -> None:
    reports = []

    def report(metrics: Mapping[str, float], folder: Path | None) -> None:
        reports.append((metrics["epoch"], folder is not None and (folder / "progress.json").exists()))

    fit(QUICK, data, Ranks(), tmp_path, report)
    assert reports == [(0, True), (1, True)]


def test_a_reported_checkpoint_leaves_nothing_behind(data: TrainData, tmp_path: Path) -> None:
    folders: list[Path | None] = []
    fit(QUICK, data, Ranks(), tmp_path, lambda _, folder: folders.append(folder))
    assert not any(folder and folder.exists() for folder in folders)


def test_training_stops_after_patience(data: TrainData, tmp_path: Path) -> None:
    # Images of one level carry nothing, so no epoch has a better AUROC than the first, and SGD stands still.
    blank = TrainData(
        train=data.train, val=ArrayExamples(data.val.images * 0, data.val.labels), objective=data.objective
    )
    still = OptimizerConfig(name="sgd", learning_rate=1e-30, schedule="constant")
    config = QUICK.model_copy(update={"epochs": 50, "patience": 2, "optimizer": still})
    assert [row["epoch"] for row in train(config, blank, tmp_path)] == [0, 1, 2]


def test_the_weights_of_the_best_epoch_are_kept(data: TrainData, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"epochs": 4, "measure": "loss"})
    history = train(config, data, tmp_path)
    network = best_network(tmp_path / "checkpoint", data.objective, "small_cnn")
    with torch.no_grad():
        logits = network(torch.from_numpy(data.val.images)[:, None] / 127.5 - 1)
    accuracy = (logits.argmax(1).numpy() == data.val.labels).mean()
    best = min(history, key=lambda row: row["val_loss"])
    assert accuracy == pytest.approx(best["val_accuracy"])


def test_an_l1_penalty_makes_weights_smaller(data: TrainData, tmp_path: Path) -> None:
    sums = []
    for penalty in (0.0, 0.01):
        optimizer = OptimizerConfig(l1_penalty=penalty, weight_decay=0)
        config = QUICK.model_copy(update={"optimizer": optimizer, "epochs": 4})
        launch(config, data, tmp_path / str(penalty))
        weights = load_file(tmp_path / str(penalty) / "checkpoint" / "network.safetensors")
        sums.append(sum(value.abs().sum().item() for name, value in weights.items() if "weight" in name))
    assert sums[1] < 0.9 * sums[0]


def test_the_loss_of_a_batch_is_its_weighted_mean(data: TrainData) -> None:
    config = QUICK.model_copy(update={"augment": STILL})
    worker = Worker.start(config, data, Ranks(), None)
    batch = np.arange(10)
    images, targets = worker.load(0, 0, batch)
    weights = torch.from_numpy(class_weights(data.train.labels, 2, "balanced"))
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(worker.network(images), targets["labels"], weights)
    assert train_step(worker, 0, 0, batch).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_bf16_trains_on_processors_when_it_is_asked_for(data: TrainData, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"precision": "bf16"})
    assert np.isfinite(train(config, data, tmp_path)[-1]["train_loss"])


def test_fewer_images_than_workers_is_the_users_fault(data: TrainData) -> None:
    few = TrainData(train=spots(2, 0), val=data.val, objective=data.objective)
    with pytest.raises(UserFault, match="2 training images for 3 workers"):
        Worker.start(QUICK, few, Ranks(size=3), None)
