"""Launch of training workers: as processes of this machine, or as the workers of Ray Train.

Both run `models.training.loop.fit`; Ray is loaded only where it is used.
"""

import gc
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from imaging.dataset.version.dataset_version import open_version
from imaging.store.open_store import open_store
from models.config import TrainConfig
from models.objectives.aggregation import Units
from models.objectives.objective_catalog import objective_class
from models.training.epoch_history import CHECKPOINT, last_checkpoint
from models.training.footprint import check_fits
from models.training.loop import Report, fit
from models.training.ranks import Ranks
from models.training.start import open_start
from models.training.worker import TrainData


def launch(config: TrainConfig, data: TrainData, run_folder: Path, report: Report | None = None) -> Path:
    """Train with `config.workers` processes; return the folder of the last checkpoint, in `run_folder`.

    One worker is this process. `report` travels to several, so it has to be a function of a module or a partial of one.
    """
    report = report or partial(keep_last, run_folder)
    if config.workers == 1:
        fit(config, data, Ranks(), run_folder, report)
    else:
        with tempfile.TemporaryDirectory(prefix="radloop-group-") as folder:
            work = (config.workers, f"file://{folder}/meet", config, data, run_folder, report)
            spawn(fit_in_group, args=work, nprocs=config.workers)
    return run_folder / CHECKPOINT


def fit_in_group(
    rank: int,
    size: int,
    meet: str,
    config: TrainConfig,
    data: TrainData,
    run_folder: Path,
    report: Report,
    resume_from: Path | None = None,
) -> None:
    """Fit as one process of a group on this machine."""
    with in_group(rank, size, meet) as ranks:
        fit(config, data, ranks, run_folder, report, resume_from)


@contextmanager
def in_group(rank: int, size: int, meet: str) -> Iterator[Ranks]:
    """Be one process of a group that meets at `meet`, on a GPU of its own where there are enough of them."""
    gpu = torch.cuda.device_count() >= size
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    ranks = Ranks(rank=rank, size=size, local_size=size, device=device)
    if size == 1:
        yield ranks
        return
    distributed.init_process_group("nccl" if gpu else "gloo", init_method=meet, rank=rank, world_size=size)
    yield ranks
    # The group's threads end with the last reference to it, and DDP holds one in a cycle: left to the end of the
    # interpreter, they bring it down with a signal once in some fifty runs.
    gc.collect()
    distributed.destroy_process_group()


def keep_last(run_folder: Path, metrics: Mapping[str, float], folder: Path | None) -> None:
    """Keep the last checkpoint in `run_folder`: at any moment a whole one is there, see `last_checkpoint`."""
    if folder is None:
        return
    kept, new, old = (run_folder / f"{CHECKPOINT}{ending}" for ending in ("", ".new", ".old"))
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(folder, new)
    if kept.exists():
        shutil.rmtree(old, ignore_errors=True)
        kept.rename(old)
    new.rename(kept)
    shutil.rmtree(old, ignore_errors=True)


def opened(job: Mapping[str, Any]) -> tuple[TrainConfig, TrainData]:
    """Return configuration and examples of a training.

    Of `job`, plain JSON, these keys count: `store`, `cache` (a folder of this node) and its `cache_bytes`, `dataset`
    and `digest` (the version), `train` (a TrainConfig).
    """
    store = open_store(job["store"], Path(job["cache"]), job["cache_bytes"])
    version = open_version(store, job["dataset"], job["digest"])
    config = TrainConfig.model_validate(job["train"])
    val, judged = version.examples("val"), config.aggregate.in_training
    data = TrainData(
        train=version.examples("train"),
        val=val,
        val_units=Units.of_version(version, val, judged.over) if judged.is_on else None,
        objective=objective_class(config.objective).of_version(version).aggregated(judged),
        modality=version.spec.modality,
        start=open_start(config, store),
    )
    return config, data


def train_here(rank: int, size: int, meet: str, job: Mapping[str, Any]) -> None:
    """Train as one process of a group on this machine, from the last checkpoint of the run where there is one.

    `job` is as `opened` takes it, with its `run_folder`.
    """
    folder, (config, data) = Path(job["run_folder"]), opened(job)
    check_fits(config, data, size)
    report = partial(keep_last, folder)
    fit_in_group(rank, size, meet, config, data, folder, report, last_checkpoint(folder))


def train_loop(job: dict[str, Any]) -> None:
    """Train as one worker of Ray Train; `job` as `opened` takes it, with its `run_folder`."""
    fit_in_ray(*opened(job), Path(job["run_folder"]))


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
    check_fits(config, data, ranks.local_size)
    with checkpoint.as_directory() if checkpoint else nullcontext() as folder:
        fit(config, data, ranks, run_folder, report, Path(folder) if folder else None)
