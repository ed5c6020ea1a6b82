"""Compares the step time of the loop under Ray Train with that under plain torch DDP.

Both run the same `fit` on the same images with two processes each, at the same time but in turns: while one
trains for an epoch the other waits. So each epoch gives one ratio of neighbours in time, and whatever else the
machine does falls on both. The result is the median of the ratios.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.config import TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples
from models.training.epoch_history import read_history
from models.training.launch import fit_in_ray, launch, report_to_ray
from models.training.worker import TrainData

BATCH_SIZE = 64
TURN_S = 300
"""The longest wait for the other side; more means that it has died."""


def ordered(epochs: int) -> TrainConfig:
    return TrainConfig(
        network="residual_small", epochs=epochs, batch_size=BATCH_SIZE, workers=2, patience=epochs
    )


def synthetic(count: int = 2048, size_px: int = 28) -> TrainData:
    draw = np.random.default_rng(0)
    rows = ArrayExamples(
        draw.integers(0, 256, (count, size_px, size_px), dtype=np.uint8), np.arange(count) % 2
    )
    few = ArrayExamples(rows.images[:64], rows.labels[:64])
    return TrainData(train=rows, val=few, objective=Classification(classes=("plain", "lesion")))


def pass_turn(
    folder: Path, me: str, epochs: int, metrics: Mapping[str, float], checkpoint: Path | None
) -> None:
    """Say that the epoch is done, and wait until the other side's is: Ray goes first in each epoch."""
    if me == "ray":
        report_to_ray(metrics, checkpoint)
    epoch = int(metrics["epoch"])
    if checkpoint:
        (folder / f"{me}-{epoch}").touch()
    awaited = folder / (f"torch-{epoch}" if me == "ray" else f"ray-{epoch + 1}")
    deadline = time.monotonic() + TURN_S
    while epoch < epochs - 1 and not awaited.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{awaited.name} has not come in {TURN_S} s: the other side has ended")
        time.sleep(0.02)


def ray_worker(config: dict[str, Any]) -> None:
    folder, epochs = Path(config["folder"]), config["epochs"]
    fit_in_ray(ordered(epochs), synthetic(), folder / "ray", partial(pass_turn, folder, "ray", epochs))


def under_ray(folder: Path, epochs: int) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        ray_worker,
        train_loop_config={"folder": str(folder), "epochs": epochs},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="fit", storage_path=str(folder)),
    ).fit()


def under_torch(folder: Path, epochs: int) -> None:
    launch(ordered(epochs), synthetic(), folder / "torch", partial(pass_turn, folder, "torch", epochs))


def steps_ms(folder: Path) -> list[float]:
    """Return the mean time of a step in each epoch, without the first, in which processes warm up."""
    return [1000 * BATCH_SIZE / row["images_per_s"] for row in read_history(folder)[1:]]


def main() -> None:
    import ray

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=31)
    epochs = parser.parse_args().epochs
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory(prefix="radloop-bench-") as name:
        plain = threading.Thread(target=under_torch, args=(Path(name), epochs))
        plain.start()
        under_ray(Path(name), epochs)
        plain.join()
        ray_ms, torch_ms = steps_ms(Path(name) / "ray"), steps_ms(Path(name) / "torch")
    ray.shutdown()
    ratios = [one / other for one, other in zip(ray_ms, torch_ms, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"step of a Ray Train worker {statistics.median(ray_ms):.2f} ms, of plain torch DDP ", end="")
    print(
        f"{statistics.median(torch_ms):.2f} ms; median ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    main()
