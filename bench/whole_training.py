"""Whole command of a training, from the shell and back, beside Lightning: `python -m bench.whole_training`.

PneumoniaMNIST, the same network and batch, two processes, a model on disk at the end. Ours proves and registers it too.
The home is warm: its dataset is there, and one training has been before. The commands take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.npz import DATA

NPZ = DATA / "pneumoniamnist.npz"
ROOT = Path(__file__).parent.parent
NAME = "bench"


def timed(command: list[str]) -> float:
    """Return the seconds of a command."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--epochs", type=int, default=3)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="radloop-bench-") as folder:
        radloop = ["-m", "cli.main", "--home", f"{folder}/home"]
        timed([*radloop, "ingest", "--source", str(NPZ), "--name", NAME])
        train = [*radloop, "train", "--name", NAME, "--again", "--epochs", str(asked.epochs)]
        theirs = ["-m", "bench.lightning_fit", str(NPZ), f"{folder}/lightning", str(asked.epochs)]
        timed(train), timed(theirs)
        pairs = [(timed(train), timed(theirs)) for _ in range(asked.rounds)]
        timed([*radloop, "down"])
    ours, lightning = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(mine / other for mine, other in pairs)
    print("| whole training, 3 epochs of PneumoniaMNIST | ours | Lightning | ratio |\n|---|---|---|---|")
    print(f"| {asked.epochs} epochs | {ours:.1f} s | {lightning:.1f} s | {ratio:.2f}, 0.8 is asked for |")


if __name__ == "__main__":
    main()
