"""Owns training without a cluster: the same loop in plain processes of this machine."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import distributed
from torch.multiprocessing.spawn import spawn

from models.config import TrainConfig
from models.loop import Report, fit
from models.ranks import Ranks
from models.worker import TrainData

CHECKPOINT = "checkpoint"


def launch(config: TrainConfig, data: TrainData, run_folder: Path, resume_from: Path | None = None) -> Path:
    """Train with `config.workers` processes; return the folder of the last checkpoint, in `run_folder`."""
    if config.workers == 1:
        fit(config, data, Ranks(), run_folder, keep_last(run_folder), resume_from)
        return run_folder / CHECKPOINT
    with tempfile.TemporaryDirectory(prefix="radloop-rendezvous-") as folder:
        work = (config, data, run_folder, resume_from, f"file://{folder}/meet")
        spawn(_process, args=work, nprocs=config.workers)
    return run_folder / CHECKPOINT


def _process(
    rank: int, config: TrainConfig, data: TrainData, run_folder: Path, resume_from: Path | None, meet: str
) -> None:
    ranks = Ranks(rank=rank, size=config.workers, local_size=config.workers)
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=config.workers)
    try:
        fit(config, data, ranks, run_folder, keep_last(run_folder), resume_from)
    finally:
        distributed.destroy_process_group()


def keep_last(run_folder: Path) -> Report:
    """Return a report that keeps the last checkpoint in `run_folder`."""

    def report(metrics: Mapping[str, float], folder: Path | None) -> None:
        if folder:
            shutil.copytree(folder, run_folder / CHECKPOINT, dirs_exist_ok=True)

    return report
