"""Trains MNIST (60,000 digits, 28 px) and prints the test accuracy; every tenth training image is for validation.

`python -m bench.mnist` within a minute, `--preset accurate` within five.
"""

import numpy as np

from bench.npz import DATA, read, table
from models.config import OptimizerConfig, TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples
from models.training.worker import TrainData

FAST = TrainConfig(
    network="small_cnn",
    epochs=5,
    batch_size=128,
    optimizer=OptimizerConfig(learning_rate=4e-3),
    ema_decay=0.99,
    measure="loss",
    class_weights="none",
)
ACCURATE = FAST.model_copy(update={"network": "residual_small", "epochs": 7})


def main() -> None:
    parts = read(DATA / "mnist.npz")
    whole, is_val = parts["train"], np.arange(len(parts["train"])) % 10 == 0
    train, val = (ArrayExamples(whole.images[part], whole.labels[part]) for part in (~is_val, is_val))
    data = TrainData(train=train, val=val, objective=Classification(classes=tuple("0123456789")))
    table({"fast": FAST, "accurate": ACCURATE}, data, parts["test"], "MNIST, test part")


if __name__ == "__main__":
    main()
