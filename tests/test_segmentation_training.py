"""Training of masks through the loop itself: images, volumes, patches, and classes that nobody drew."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import TrainConfig
from models.objectives.segmentation import Segmentation
from models.training.epoch_history import read_history
from models.training.loop import fit
from models.training.ranks import Ranks
from models.training.worker import TrainData, Worker
from tests.mask_examples import discs

QUICK = {
    "objective": "segmentation",
    "network": "unet",
    "epochs": 3,
    "batch_size": 4,
    "workers": 1,
    # Of 15 steps an average over 50 would still be the first weights.
    "ema_decay": 0.0,
    "optimizer": {"learning_rate": 0.005},
}


def best_dice(shape: tuple[int, ...], folder: Path, **changes: Any) -> float:
    train, val = discs(24, shape, seed=1), discs(8, shape, seed=2)
    data = TrainData(train=train, val=val, objective=Segmentation(classes=("organ",)))
    fit(TrainConfig.model_validate(QUICK | changes), data, Ranks(), folder, lambda *_: None)
    return max(row["val_dice"] for row in read_history(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((16, 16), {}),
        ((24, 24), {"patch": {"size_px": 16}}),
        ((8, 16, 16), {"network": "unet_3d", "epochs": 2}),
    ],
)
def test_a_u_net_learns_to_draw_discs_and_balls(
    shape: tuple[int, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    assert best_dice(shape, tmp_path, **changes) >= 0.9


def load(shape: tuple[int, ...], **changes: Any) -> tuple[torch.Tensor, Any]:
    examples = discs(6, shape)
    # What is drawn is what is seen, so that both can be compared after they were moved.
    examples.images[:] = examples.drawn * 200
    data = TrainData(train=examples, val=examples, objective=Segmentation(classes=("organ",)))
    still = {"contrast": 0, "brightness": 0}
    config = TrainConfig.model_validate(QUICK | {"augment": still} | changes)
    worker = Worker.start(config, data, Ranks(), None)
    return worker.load(0, 0, next(worker.batches(0)))


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((24, 24), {}),
        ((24, 24), {"patch": {"size_px": 16}}),
        ((6, 24, 24), {"network": "unet_3d", "patch": {"size_px": 16, "slices": 4}}),
    ],
)
def test_image_and_mask_move_together(shape: tuple[int, ...], changes: dict[str, Any]) -> None:
    images, targets = load(shape, **changes)
    side = 16 if changes else 24
    assert images.shape[-2:] == targets["masks"].shape[-2:] == (side, side)
    seen, drawn = images.reshape(targets["masks"].shape) > -0.2, targets["masks"] == 1
    known = targets["masks"] != 255
    # One is sampled between pixels and the other at the nearest.
    assert ((seen == drawn) | ~known).float().mean() > 0.96
    assert drawn.any()
