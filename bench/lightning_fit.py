"""Training as a user of Lightning writes it, for comparisons: two gloo processes, a model on disk.

`python -m bench.lightning_fit NPZ FOLDER EPOCHS [channels-last]`: Lightning starts the second process by that command
too. After each epoch it prints the validation AUROC. Needs lightning (2.6.6), which nothing else here does: it is not
installed with the rest.
"""

import sys
from pathlib import Path

import lightning  # type: ignore[import-not-found, unused-ignore]
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import BinaryAUROC  # type: ignore[import-not-found, unused-ignore]

from bench.npz import read
from models.config import TrainConfig
from models.networks.catalog import build
from models.training.batches import ArrayExamples, normalise

PROCESSES, BATCH = 2, TrainConfig().batch_size
"""The batch is that of both processes together."""


class Module(lightning.LightningModule):  # type: ignore[misc, unused-ignore]
    """The network and the optimizer of `TrainConfig`'s defaults."""

    def __init__(self, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.network = build("residual_small", 2).to(memory_format=memory_format)
        self.auroc = BinaryAUROC()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self.network(normalise(batch[0].float())), batch[1])

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        logits = self.network(normalise(batch[0].float()))
        self.auroc.update(logits.softmax(1)[:, 1], batch[1])
        self.log("val_auroc", self.auroc)

    def on_validation_epoch_end(self) -> None:
        auroc = float(self.auroc.compute())
        if self.trainer.is_global_zero:
            print(f"val_auroc {auroc}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def loader(part: ArrayExamples, shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
    examples = TensorDataset(torch.from_numpy(part.images)[:, None], torch.from_numpy(part.labels))
    return DataLoader(examples, BATCH // PROCESSES, shuffle=shuffle)


def main() -> None:
    path, folder, epochs, *options = sys.argv[1:]
    parts = read(Path(path))
    trainer = lightning.Trainer(
        accelerator="cpu", devices=PROCESSES, strategy="ddp", max_epochs=int(epochs), default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, logger=False, num_sanity_val_steps=0,
    )  # fmt: skip
    module = Module(torch.channels_last if options == ["channels-last"] else torch.contiguous_format)
    trainer.fit(module, loader(parts["train"], shuffle=True), loader(parts["val"], shuffle=False))


if __name__ == "__main__":
    main()
