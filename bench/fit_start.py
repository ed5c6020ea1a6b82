"""Fixed part of a fit by two workers, with processes of this machine and with Ray Train: `python -m bench.fit_start`.

One epoch of 60 small images, which takes no time; the two in turns. Torch is loaded anew in each turn, and Ray started.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from bench.interleaved import interleave, row
from imaging.release_compatibility import canonical
from imaging.store.folder_store import FolderStore
from models.config import TrainConfig
from models.torch_process import end_torch
from services.ray.cluster import training_ray
from services.ray.trainer import Launcher, TrainingJob, on_ray, on_this_machine
from services.settings import activate
from tests.synthetic import version_of

CONFIG = TrainConfig(network="small_cnn", epochs=1, batch_size=8, workers=2)
OURS, RAY = "processes of this machine", "Ray Train"
ASKED = 2.0


def fit(launcher: Launcher, folder: Path) -> Callable[[int], None]:
    def timed(_: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as run:
            job = TrainingJob(
                store=str(folder), cache=str(folder / "cache"), cache_bytes=10**9, dataset="d",
                digest=digest, train=canonical(CONFIG), run_folder=run, run_id="", flow_run_id="",
            )  # fmt: skip
            with training_ray(CONFIG.workers) if launcher is on_ray else nullcontext():
                launcher(job, CONFIG, print)
            end_torch()

    digest = version_of(FolderStore(folder), patients=60).digest
    return timed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="radloop-bench-") as folder:
        activate(Path(folder) / "home")
        sides = {OURS: on_this_machine, RAY: on_ray}
        candidates = {
            name: fit(side, Path(folder) / str(at)) for at, (name, side) in enumerate(sides.items())
        }
        took = interleave(candidates, 1, rounds)
    print("| what | ours | beside | speed | asked for |\n|---|---|---|---|---|")
    print(row("fixed part of a fit by two workers", took, OURS, ASKED, RAY))


if __name__ == "__main__":
    main()
