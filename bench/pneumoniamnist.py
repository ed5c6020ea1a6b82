"""Trains PneumoniaMNIST (5,856 chest radiographs, 28 px) and prints the test AUROC and accuracy of each seed.

The preset was chosen on train and val alone; the test part is read once a seed.
"""

from bench.npz import DATA, read, table
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.training.worker import TrainData

PRESET = TrainConfig(network="residual_small", epochs=16, batch_size=64, ema_decay=0.99, patience=16)


def main() -> None:
    parts = read(DATA / "pneumoniamnist.npz")
    data = TrainData(
        train=parts["train"], val=parts["val"], objective=Classification(classes=("normal", "pneumonia"))
    )
    table({"default": PRESET}, data, parts["test"], "PneumoniaMNIST, test part")


if __name__ == "__main__":
    main()
