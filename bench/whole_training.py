"""Whole command of a training, from the shell to a model on disk, beside Lightning and MONAI in turn.

PneumoniaMNIST (or some of its images, enlarged), the same network and batch, two processes. Ours varies, proves,
calibrates and registers too; its home is warm: the dataset is there, and one training has been before. Of each command:
its time, the examples a second of the whole and from the end of the first epoch to that of the last, and the time to
a validation AUROC of 0.98. `python -m bench.whole_training --size-px 224 --rounds 2`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.npz import DATA, read
from models.training.epoch_history import HISTORY, read_history

ROOT = Path(__file__).parent.parent
NAME, WANTED = "bench", 0.98
FEW = {"train": 512, "val": 64}
"""Images of 224 px: enough for the time of a step."""
POLL_S = 0.02


@dataclass(frozen=True)
class Run:
    """Seconds of a command, of which its epochs ended after `epochs_s`, and the validation AUROC of each."""

    seconds: float
    epochs_s: list[float]
    aurocs: list[float]

    def examples_a_second(self, train: int) -> float:
        return train * len(self.epochs_s) / self.seconds

    def steady_examples_a_second(self, train: int) -> float:
        return train * (len(self.epochs_s) - 1) / (self.epochs_s[-1] - self.epochs_s[0])

    @property
    def to_wanted_s(self) -> float:
        reached = (took for took, auroc in zip(self.epochs_s, self.aurocs, strict=True) if auroc >= WANTED)
        return next(reached, float("nan"))


def printed(command: list[str]) -> Run:
    """Run a command that prints a line after each epoch."""
    began, epochs_s, aurocs = time.perf_counter(), [], []
    with _started(command) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("val_auroc "):
                epochs_s.append(time.perf_counter() - began)
                aurocs.append(float(line.split()[1]))
    return Run(time.perf_counter() - began, epochs_s, aurocs)


def recorded(command: list[str], home: Path) -> Run:
    """Run a training of ours; its epochs are in the history of its folder."""
    known, began, epochs_s, ended = set(home.rglob(HISTORY)), time.perf_counter(), [], threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            for path in set((home / "store" / "training").glob(f"*/{HISTORY}")) - known:
                epochs_s.extend(
                    [time.perf_counter() - began] * (len(read_history(path.parent)) - len(epochs_s))
                )

    watching = threading.Thread(target=watch)
    watching.start()
    with _started(command) as process:
        process.communicate()
    took = time.perf_counter() - began
    ended.set()
    watching.join()
    (path,) = set(home.rglob(HISTORY)) - known
    return Run(took, epochs_s, [row["val_auroc"] for row in read_history(path.parent)])


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def write_npz(path: Path, size_px: int) -> int:
    """Write the training and validation images at a size; return how many there are for training."""
    parts = read(DATA / "pneumoniamnist.npz")
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("train", "val", "test"):
        images, labels = parts[part].images, parts[part].labels
        if (times := size_px // images.shape[1]) > 1:
            every = len(images) // FEW.get(part, FEW["val"])
            images, labels = (
                images[::every].repeat(times, axis=1).repeat(times, axis=2),
                labels[::every],
            )
        arrays |= {f"{part}_images": images, f"{part}_labels": labels[:, None]}
    np.savez(path, **arrays)
    return len(arrays["train_labels"])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--size-px", type=int, default=28, choices=(28, 224))
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="radloop-bench-") as name:
        folder, home = Path(name), Path(name) / "home"
        npz, fp32, epochs = folder / "images.npz", folder / "fp32.yaml", str(asked.epochs)
        fp32.write_text("training:\n  precision: fp32\n")
        train = write_npz(npz, asked.size_px)
        radloop = ["-m", "cli.main", "--home", str(home)]
        printed([*radloop, "ingest", "--source", str(npz), "--name", NAME])
        ours = [*radloop, "train", "--name", NAME, "--again", "--epochs", epochs]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        sides: dict[str, Callable[[], Run]] = {
            "ours": lambda: recorded(ours, home),
            "ours in fp32": lambda: recorded([*ours, "--config", str(fp32)], home),
            "Lightning": lambda: printed(["-m", "bench.lightning_fit", str(npz), f"{name}/l", epochs]),
            "Lightning, channels last": lambda: printed(
                ["-m", "bench.lightning_fit", str(npz), f"{name}/c", epochs, "channels-last"]
            ),
            "MONAI": lambda: printed([*torchrun, "-m", "bench.monai_fit", str(npz), f"{name}/m", epochs]),
        }
        sides["ours"](), sides["Lightning"]()
        rounds = [{side: run() for side, run in sides.items()} for _ in range(asked.rounds)]
        printed([*radloop, "down"])
    print(
        f"{train} images of {asked.size_px} px, {epochs} epochs; ratios beside ours, medians of {asked.rounds} rounds"
    )
    print("| | whole | ratio | examples/s of the whole | steady | ratio | to AUROC 0.98 | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for side in sides:
        print(line(side, [(one["ours"], one[side]) for one in rounds], train))


def line(side: str, pairs: list[tuple[Run, Run]], train: int) -> str:
    """Return a side's line of the table; each ratio is ours over theirs, of seconds, or of examples a second."""

    def middle(of: Callable[[Run], float]) -> str:
        return f"{statistics.median(of(theirs) for _, theirs in pairs):.1f}"

    def ratio(of: Callable[[Run], float]) -> str:
        return f"{statistics.median(of(ours) / of(theirs) for ours, theirs in pairs):.2f}"

    cells = [
        middle(lambda run: run.seconds), ratio(lambda run: run.seconds),
        middle(lambda run: run.examples_a_second(train)),
        middle(lambda run: run.steady_examples_a_second(train)),
        ratio(lambda run: run.steady_examples_a_second(train)),
        middle(lambda run: run.to_wanted_s), ratio(lambda run: run.to_wanted_s),
    ]  # fmt: skip
    return f"| {side} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
