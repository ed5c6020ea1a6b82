"""Training loop of one worker, from top to bottom.

The caller of `fit` hands in the examples, this process's place among the ranks and where to report to, so the
same code runs under Ray, in plain processes and in a test.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config import LAST, TrainConfig
from models.objectives.protocol import Objective, named_outputs
from models.training.batches import seed_of
from models.training.checkpoint import save
from models.training.epoch_history import StepRecord, record
from models.training.loss_watch import LossWatch
from models.training.memory import batch_in_memory, peak_mb
from models.training.optimization import l1_norm, recalibrate, set_learning_rate
from models.training.precision import autocast
from models.training.ranks import Ranks, synchronised_if
from models.training.validation import validate
from models.training.worker import Goals, TrainData, Worker

RECALIBRATION_STEPS = 16
"""Batches from which running statistics are made: enough for a mean, few beside an epoch."""

Report = Callable[[Mapping[str, float], Path | None], None]
"""Takes an epoch's metrics and, on the first rank, the folder of a checkpoint that is gone afterwards."""


def fit(
    config: TrainConfig,
    data: TrainData,
    ranks: Ranks,
    run_folder: Path,
    report: Report,
    resume_from: Path | None = None,
) -> None:
    """Train until the last epoch, or until `patience` epochs were no better.

    After each epoch the first rank writes a line of `run_folder/history.jsonl`, and every rank reports once.
    """
    entered = time.perf_counter()
    ranks.share_cores()
    worker = Worker.start(config, data, ranks, resume_from)
    watch, steps_done = LossWatch(worker), StepRecord(run_folder, writes=ranks.leads)
    while not worker.progress.is_over(config):
        epoch, begun = worker.progress.epochs, time.perf_counter()
        with batch_in_memory(config, ranks.device):
            trained = train_epoch(worker, epoch, entered, watch, steps_done)
            metrics = {"epoch": epoch, **trained, **validate(worker)}
        advance(worker, metrics)
        metrics["memory_mb"] = peak_mb(ranks.device)
        metrics["seconds"] = time.perf_counter() - begun
        if ranks.leads:
            record(run_folder, metrics)
        with written_checkpoint(worker) as folder:
            report(metrics, folder)


def train_epoch(
    worker: Worker, epoch: int, entered: float, watch: LossWatch, steps_done: StepRecord
) -> dict[str, float]:
    """Pass once over the training rows, then make the running statistics of the average anew."""
    begun, waited_s, ranks = time.perf_counter(), worker.waited_s, worker.ranks
    # Dropout draws from the global generator: its own stream for each rank and epoch, the same after a resume.
    torch.manual_seed(seed_of(worker.config.seed, epoch, ranks.rank))
    worker.network.train()
    loss, metrics = torch.zeros((), device=ranks.device), {}
    for step, batch in enumerate(worker.batches(epoch)):
        step_loss = train_step(worker, epoch, step, batch)
        # A step that the scaler of fp16 skips counts nothing; any other loss that is not finite ends the run.
        loss += step_loss.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        watch.add(epoch, step, batch, step_loss)
        steps_done.add(epoch, step + 1, worker.steps, worker.config.batch_size)
        if epoch == step == 0:
            loss.item()  # waits for the device
            metrics["first_step_s"] = time.perf_counter() - entered
    watch.end_epoch()
    metrics["train_loss"] = ranks.total(loss).item() / worker.steps
    metrics["learning_rate"] = worker.learning_rate(epoch, worker.steps - 1)
    if worker.scaler.is_enabled():
        metrics["loss_scale"] = worker.scaler.get_scale()
    seconds = time.perf_counter() - begun
    metrics["images_per_s"] = (step * worker.config.batch_size + len(batch)) / seconds
    metrics["waiting_share"] = (worker.waited_s - waited_s) / seconds
    unvaried = map(worker.load_unvaried, islice(worker.batches(epoch), RECALIBRATION_STEPS))
    recalibrate(worker.average.network, unvaried, ranks)
    return metrics


def train_step(worker: Worker, epoch: int, step: int, batch: NDArray[np.int64]) -> Tensor:
    """Move the weights by one global batch; return this rank's part of the batch's loss.

    The loss is divided by the weight of the global batch, not of this rank's share, so the sum over the ranks
    does not depend on how many there are.
    """
    config, scaler, weight = worker.config.optimizer, worker.scaler, float(worker.weights[batch].sum())
    worker.optimizer.zero_grad()
    loss = torch.zeros((), device=worker.ranks.device)
    for number, (images, goals) in enumerate(worker.passes(epoch, step, batch), start=1):
        is_last = number == config.accumulation
        with synchronised_if(worker.model, is_last):
            with autocast(worker.computes_in, worker.ranks.device):
                outputs = named_outputs(worker.model(images))
            part = loss_of(worker.objective, outputs, goals) / weight
            # Gradients are averaged over the ranks, while the parts of the loss have to add up.
            minimized = part * worker.ranks.size
            if config.l1_penalty and is_last:
                minimized = minimized + config.l1_penalty * l1_norm(worker.network)
            scaler.scale(minimized).backward()
        loss += part.detach()
    if config.clip_norm:
        scaler.unscale_(worker.optimizer)
        nn.utils.clip_grad_norm_(worker.network.parameters(), config.clip_norm)
    set_learning_rate(worker.optimizer, worker.learning_rate(epoch, step))
    scaler.step(worker.optimizer)
    scaler.update()
    worker.average.update(epoch * worker.steps + step)
    return loss


def loss_of(objective: Objective, outputs: Mapping[str, Tensor], goals: Goals) -> Tensor:
    """Return the loss of images for their targets, or with mixup its mean for the targets of both images."""
    (share, targets), *others = goals
    loss = objective.loss(outputs, targets)
    for other_share, other_targets in others:
        loss = share * loss + other_share * objective.loss(outputs, other_targets)
    return loss


def advance(worker: Worker, metrics: Mapping[str, float]) -> None:
    """Count the epoch; if it is the best so far, keep its averaged weights."""
    measure = worker.config.measure
    merit = (metrics["epoch"],) if measure == LAST else worker.objective.merit(metrics, measure)
    worker.progress = worker.progress.after(merit)
    if worker.progress.best_epoch == metrics["epoch"]:
        worker.best = {name: value.clone() for name, value in worker.average.network.state_dict().items()}


@contextmanager
def written_checkpoint(worker: Worker) -> Iterator[Path | None]:
    """Hand out a folder with the state of this moment, on the first rank; elsewhere None."""
    if not worker.ranks.leads:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="radloop-checkpoint-") as folder:
        average = worker.average.network
        save(
            Path(folder),
            worker.progress,
            worker.network,
            average,
            worker.best,
            worker.optimizer,
            worker.scaler,
        )
        yield Path(folder)
