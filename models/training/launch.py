"""Launch of training workers: in plain processes of this machine, or as the workers of Ray Train.

Both run `models.training.loop.fit`; Ray is loaded only where it is used.
"""

import gc
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import distributed
from torch.multiprocessing.spawn import spawn

from imaging.dataset.version.dataset_version import open_version
from imaging.store.open_store import open_store
from models.config import TrainConfig
from models.objectives.objective_catalog import objective_class
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


def train_loop(config: dict[str, Any]) -> None:
    """Train as one worker of Ray Train; `config` is plain JSON.

    Its keys: `store`, `cache` (a folder of this node) and its `cache_bytes`, `dataset` and `digest` (the version),
    `train` (a TrainConfig), `run_folder`.
    """
    store = open_store(config["store"], Path(config["cache"]), config["cache_bytes"])
    version = open_version(store, config["dataset"], config["digest"])
    train_config = TrainConfig.model_validate(config["train"])
    data = TrainData(
        train=version.examples("train"),
        val=version.examples("val"),
        objective=objective_class(train_config.objective).of_version(version),
    )
    fit_in_ray(train_config, data, Path(config["run_folder"]))


def report_to_ray(metrics: Mapping[str, float], folder: Path | None) -> None:
    """Report an epoch to Ray Train; the checkpoint is copied to the run's storage before this returns."""
    from ray import train

    train.report(dict(metrics), checkpoint=train.Checkpoint.from_directory(folder) if folder else None)


def fit_in_ray(
    config: TrainConfig, data: TrainData, run_folder: Path, report: Report = report_to_ray
) -> None:
    """Fit as the worker that Ray Train says this process is, from Ray's checkpoint where there is one."""
    from ray import train
    from ray.train.torch import get_device

    context, checkpoint = train.get_context(), train.get_checkpoint()
    ranks = Ranks(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        local_size=context.get_local_world_size(),
        device=get_device(),
    )
    with checkpoint.as_directory() if checkpoint else nullcontext() as folder:
        fit(config, data, ranks, run_folder, report, Path(folder) if folder else None)
