"""Owns training without a cluster: the same loop in plain processes of this machine."""

import gc
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import distributed
from torch.multiprocessing.spawn import spawn

from models.config import TrainConfig
from models.training.loop import Report, fit
from models.training.ranks import Ranks
from models.training.worker import TrainData

CHECKPOINT = "checkpoint"


def launch(config: TrainConfig, data: TrainData, run_folder: Path, report: Report | None = None) -> Path:
    """Train with `config.workers` processes; return the folder of the last checkpoint, in `run_folder`.

    `report` travels to the processes, so it has to be a function of a module or a partial of one.
    """
    report = report or partial(keep_last, run_folder)
    if config.workers == 1:
        fit(config, data, Ranks(), run_folder, report)
    else:
        with tempfile.TemporaryDirectory(prefix="radloop-rendezvous-") as folder:
            work = (config, data, run_folder, report, f"file://{folder}/meet")
            spawn(_process, args=work, nprocs=config.workers)
    return run_folder / CHECKPOINT


def _process(
    rank: int, config: TrainConfig, data: TrainData, run_folder: Path, report: Report, meet: str
) -> None:
    ranks = Ranks(rank=rank, size=config.workers, local_size=config.workers)
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=config.workers)
    fit(config, data, ranks, run_folder, report)
    # The group's threads end with the last reference to it, and DDP holds one in a cycle: left to the end of the
    # interpreter, they bring it down with a signal once in some fifty runs.
    gc.collect()
    distributed.destroy_process_group()


def keep_last(run_folder: Path, metrics: Mapping[str, float], folder: Path | None) -> None:
    """Keep the last checkpoint in `run_folder`."""
    if folder:
        shutil.copytree(folder, run_folder / CHECKPOINT, dirs_exist_ok=True)
