"""Validation of the averaged network after each epoch, on the validation examples of all ranks together."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from imaging.statistics.classification import MEASURES, Predictions
from models.training.batches import TrainingExamples, normalise
from models.training.worker import Worker

BATCH = 256

Merit = tuple[float, ...]


def validate(worker: Worker) -> dict[str, float]:
    """Return `val_loss` (weighted as in training), `val_auroc` and `val_accuracy`, the same on every rank."""
    rows = worker.data.val
    probabilities = predict(worker, rows)
    told = Predictions(
        labels=rows.labels,
        probabilities=probabilities,
        patients=np.full(len(rows), ""),
        classes=worker.data.classes,
    )
    once = np.ones((1, len(rows)))
    weights = worker.class_weights[rows.labels][None].astype(np.float64)
    return {
        "val_loss": float(MEASURES["log_loss"](told, weights)[0]),
        "val_auroc": float(MEASURES["auroc"](told, once)[0]),
        "val_accuracy": float(MEASURES["accuracy_argmax"](told, once)[0]),
    }


@torch.no_grad()
def predict(worker: Worker, rows: TrainingExamples) -> NDArray[np.float32]:
    """Return probabilities (n, classes): each rank fills in its stripe, and the sum is the whole."""
    mine = np.arange(worker.ranks.rank, len(rows), worker.ranks.size)
    whole = torch.zeros(len(rows), len(worker.data.classes), device=worker.ranks.device)
    network = worker.average.network.eval()
    for begin in range(0, len(mine), BATCH):
        index = mine[begin : begin + BATCH]
        logits = network(normalise(worker.levels(rows, index)))
        whole[torch.from_numpy(index).to(whole.device)] = logits.softmax(dim=1)
    probabilities: NDArray[np.float32] = worker.ranks.total(whole).cpu().numpy()
    return probabilities


def _by_auroc(metrics: Mapping[str, float]) -> Merit:
    # An AUROC of 1 is soon reached on few patients, and an undefined one says nothing: the loss decides then.
    auroc = metrics["val_auroc"]
    return (0.0 if math.isnan(auroc) else auroc, -metrics["val_loss"])


def _by_loss(metrics: Mapping[str, float]) -> Merit:
    return (-metrics["val_loss"],)


MERITS: dict[str, Callable[[Mapping[str, float]], Merit]] = {"auroc": _by_auroc, "loss": _by_loss}
"""From an epoch's metrics to what sorts higher for better epochs, by `TrainConfig.measure`."""
