"""Training as MONAI's tutorials write it (MedNIST's transforms, SupervisedTrainer, DDP), for comparisons.

`python -m torch.distributed.run --nproc-per-node 2 -m bench.monai_fit NPZ FOLDER EPOCHS`: two gloo processes, a model
on disk. After each epoch it prints the validation AUROC. Needs pytorch-ignite (0.5.5) beside MONAI (1.6.1).
"""

import sys
from pathlib import Path
from typing import Any

import ignite.distributed as idist  # type: ignore[import-not-found, unused-ignore]
import numpy as np
import torch
from ignite.engine import Events  # type: ignore[import-not-found, unused-ignore]
from monai.data import DataLoader, Dataset, DistributedSampler  # type: ignore[attr-defined]
from monai.engines import SupervisedEvaluator, SupervisedTrainer  # type: ignore[attr-defined]
from monai.handlers import ROCAUC, CheckpointSaver, ValidationHandler, from_engine  # type: ignore[attr-defined]
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import ScaleIntensityd
from monai.transforms.post.dictionary import Activationsd, AsDiscreted
from monai.transforms.spatial.dictionary import RandFlipd, RandRotated, RandZoomd
from torch import distributed, nn

from bench.npz import read
from models.config import TrainConfig
from models.networks.catalog import build
from models.training.batches import ArrayExamples

BATCH = TrainConfig().batch_size
SCALED = ScaleIntensityd("image")
VARIED = Compose([
    SCALED,
    RandRotated("image", range_x=np.pi / 12, prob=0.5, keep_size=True),
    RandFlipd("image", spatial_axis=0, prob=0.5),
    RandZoomd("image", min_zoom=0.9, max_zoom=1.1, prob=0.5),
])  # fmt: skip


def loader(part: ArrayExamples, transform: Any, shuffle: bool) -> DataLoader:
    rows = [
        {"image": image[None], "label": int(label)}
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    examples = Dataset(rows, transform)
    sampler = DistributedSampler(examples, shuffle=shuffle, even_divisible=shuffle)
    return DataLoader(examples, batch_size=BATCH // distributed.get_world_size(), sampler=sampler)


def main() -> None:
    path, folder, epochs = sys.argv[1:]
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    parts, device = read(Path(path)), torch.device("cpu")
    network = nn.parallel.DistributedDataParallel(build("residual_small", 2))
    train = loader(parts["train"], VARIED, shuffle=True)
    probabilities = Compose([Activationsd("pred", softmax=True), AsDiscreted("label", to_onehot=2)])
    evaluator = SupervisedEvaluator(
        device=device, val_data_loader=loader(parts["val"], SCALED, shuffle=False), network=network,
        postprocessing=probabilities,
        key_val_metric={"val_auroc": ROCAUC(output_transform=from_engine(["pred", "label"]))},
    )  # fmt: skip
    trainer = SupervisedTrainer(
        device=device, max_epochs=int(epochs), train_data_loader=train, network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-3), loss_function=nn.CrossEntropyLoss(),
        train_handlers=[ValidationHandler(interval=1, validator=evaluator)],
    )  # fmt: skip
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: train.sampler.set_epoch(engine.state.epoch)
    )
    # Ignite's first question of this kind makes a group, which all processes have to take part in.
    if idist.get_rank() == 0:
        CheckpointSaver(folder, {"network": network}, save_final=True).attach(trainer)
        evaluator.add_event_handler(
            Events.COMPLETED,
            lambda engine: print(f"val_auroc {engine.state.metrics['val_auroc']}", flush=True),
        )
    trainer.run()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
