"""Training as a user of Lightning writes it, for `bench.whole_training`: two gloo processes, a model on disk.

`python -m bench.lightning_fit NPZ FOLDER EPOCHS`: Lightning starts the second process by that command too.
Needs lightning (2.6.6), which nothing else here does: it is not installed with the rest.
"""

import sys
from pathlib import Path

import lightning  # type: ignore[import-not-found, unused-ignore]
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from models.config import TrainConfig
from models.networks.catalog import build
from models.training.batches import normalise

PROCESSES, BATCH = 2, TrainConfig().batch_size
"""The batch is that of both processes together."""


class Module(lightning.LightningModule):  # type: ignore[misc, unused-ignore]
    """The network and the optimizer of `TrainConfig`'s defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build("residual_small", 2).to(memory_format=torch.channels_last)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self.network(normalise(batch[0].float())), batch[1])

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("val_loss", self.training_step(batch, 0), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def loader(path: Path, part: str, shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
    with np.load(path) as stored:
        images = torch.from_numpy(stored[f"{part}_images"])[:, None]
        labels = torch.from_numpy(stored[f"{part}_labels"].ravel().astype(np.int64))
    return DataLoader(TensorDataset(images, labels), BATCH // PROCESSES, shuffle=shuffle)


def main() -> None:
    path, folder, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    trainer = lightning.Trainer(
        accelerator="cpu", devices=PROCESSES, strategy="ddp", max_epochs=epochs, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, logger=False,
    )  # fmt: skip
    trainer.fit(Module(), loader(path, "train", shuffle=True), loader(path, "val", shuffle=False))


if __name__ == "__main__":
    main()
