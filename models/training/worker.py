"""One process's part of a training run: its network, optimizer and progress, and how it loads a batch."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imaging.errors import UserFault
from imaging.preprocess.slice import planes
from models.config import AugmentConfig, TrainConfig
from models.networks.layers import is_of_volumes
from models.objectives.aggregation import Units
from models.objectives.protocol import Objective, TrainingExamples
from models.training.augment import apply, draw, draw_mixup
from models.training.batches import epoch_batches, generator, normalise, seed_of, share, steps_per_epoch
from models.training.checkpoint import Weights, restore
from models.training.epoch_history import Progress
from models.training.optimization import WeightAverage, learning_rate_at, make_optimizer
from models.training.patches import cropped, draw_patches
from models.training.precision import check_device, chosen_type, gradient_scaler
from models.training.ranks import Ranks
from models.training.safe_augment import safe_augment
from models.training.start import StartWeights, begin, set_depth_rates

MIXUP = 1
"""Number of the draw of mixup, behind (seed, epoch, step)."""

Goals = Sequence[tuple[float, Mapping[str, Tensor]]]
"""Targets, each with its share: one, or two with mixup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """The examples that training may see, and what is learned from them; the test split is not among them."""

    train: TrainingExamples
    val: TrainingExamples
    objective: Objective
    modality: str = ""
    """Of the images, for what is chosen by it."""
    start: StartWeights | None = None
    """What the network begins with, where `TrainConfig.start` names weights."""
    val_units: Units | None = None
    """What epochs are measured by in place of the examples `val`, where the objective aggregates."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """One process's part of a run: `network` holds the weights, `model` is the same in step with the others."""

    config: TrainConfig
    data: TrainData
    ranks: Ranks
    network: nn.Module
    model: nn.Module
    average: WeightAverage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    computes_in: torch.dtype
    """Type of the forward pass in training."""
    objective: Objective
    augment: AugmentConfig
    weights: NDArray[np.float32]
    """The weight of each training example in the loss."""
    often: NDArray[np.float64] | None
    """How often an epoch draws each training example in the mean; None is once."""
    progress: Progress
    best: Weights
    waited_s: float = 0.0
    """Seconds in which this process waited for images and targets of training, since it started."""

    @classmethod
    def start(cls, config: TrainConfig, data: TrainData, ranks: Ranks, resume_from: Path | None) -> "Worker":
        """Build this process's part of the run, from the seed or from a checkpoint.

        Raises UserFault if there are fewer training images than workers, and for what this device cannot compute.
        """
        passes = config.optimizer.accumulation
        if len(data.train) < ranks.size * passes:
            parts = f" with accumulation {passes}: lower one of them" if passes > 1 else ": use fewer workers"
            raise UserFault(f"{len(data.train)} training images for {ranks.size} workers{parts}")
        check_device(config, ranks.device)
        torch.manual_seed(config.seed)
        channels = planes(data.train.gather(np.zeros(1, np.int64))).shape[1]
        objective = data.objective.fitted(data.train, config)
        network = objective.build(config.network, channels)
        if data.start:
            begin(network, config, objective.metadata(), data.start)
        network = network.to(ranks.device)
        # Channels last is 1.2 to 1.5 times as fast on processors, and what the convolutions of GPUs prefer.
        layout = torch.channels_last_3d if is_of_volumes(network) else torch.channels_last
        network = network.to(memory_format=layout)
        average = WeightAverage(network, config.ema_decay)
        optimizer = make_optimizer(network, config.optimizer)
        scaler = gradient_scaler(config, ranks.device)
        set_depth_rates(optimizer, network, config.start)
        progress, best = Progress(), Weights()
        if resume_from:
            progress, best = restore(resume_from, network, average.network, optimizer, scaler)
        if config.compute.sync_batch_norm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        if config.compute.compile:
            network.compile()
        return cls(
            config=config,
            data=data,
            ranks=ranks,
            network=network,
            model=ranks.synchronised(network, passes),
            average=average,
            optimizer=optimizer,
            scaler=scaler,
            computes_in=chosen_type(config, network, ranks.device),
            objective=objective,
            augment=safe_augment(data.modality) if config.augment == "modality" else config.augment,
            weights=objective.weights(data.train),
            often=objective.sampling(data.train),
            progress=progress,
            best=best,
        )

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return steps_per_epoch(len(self.data.train), self.config.batch_size)

    def learning_rate(self, epoch: int, step: int) -> float:
        """Return the learning rate at a step of an epoch."""
        done, planned = epoch * self.steps + step, self.config.epochs * self.steps
        return learning_rate_at(self.config.optimizer, done, planned)

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Yield the global batches of an epoch."""
        config = self.config
        return epoch_batches(config.seed, epoch, len(self.data.train), config.batch_size, self.often)

    def passes(self, epoch: int, step: int, batch: NDArray[np.int64]) -> Iterator[tuple[Tensor, Goals]]:
        """Yield images and targets of this rank's share of a global batch, in the parts whose gradients add up."""
        mine, passes = share(len(batch), self.ranks.rank, self.ranks.size), self.config.optimizer.accumulation
        alpha, count = self.augment.mixup_alpha, mine.stop - mine.start
        for number in range(passes):
            within = share(count, number, passes)
            part = slice(mine.start + within.start, mine.start + within.stop)
            images, targets = self.load(epoch, step, batch, part)
            if not alpha:
                yield images, [(1.0, targets)]
                continue
            kept, partners = draw_mixup(alpha, len(batch), seed_of(self.config.seed, epoch, step, MIXUP))
            others, other_targets = self.load(epoch, step, batch, partners[part])
            yield images.lerp(others, 1 - kept), [(kept, targets), (1 - kept, other_targets)]

    def load(
        self, epoch: int, step: int, batch: NDArray[np.int64], places: slice | NDArray[np.int64] | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return normalised images and targets of a global batch, varied alike, on the device.

        `places` says which of the batch; default: this rank's share.
        """
        mine = share(len(batch), self.ranks.rank, self.ranks.size) if places is None else places
        drawn = draw(self.augment, len(batch), generator(self.config.seed, epoch, step))[mine]
        variation = drawn.to(self.ranks.device)
        begun = time.perf_counter()
        levels = self.levels(self.data.train, batch[mine])
        arrays = self.objective.targets(self.data.train, batch[mine])
        if self.config.patch.cuts:
            patches = draw_patches(self.config.seed, epoch, step, len(batch))[mine]
            levels, arrays = cropped(levels, arrays, self.config.patch, patches)
        targets = {name: self.ranks.tensor(array) for name, array in arrays.items()}
        self.waited_s += time.perf_counter() - begun
        return normalise(apply(levels, variation)), self.objective.vary(targets, variation)

    def load_unvaried(self, batch: NDArray[np.int64]) -> Tensor:
        """Return this rank's share of a global batch as prediction will see it: normalised images alone."""
        mine = share(len(batch), self.ranks.rank, self.ranks.size)
        return normalise(self.levels(self.data.train, batch[mine]))

    def levels(self, examples: TrainingExamples, index: NDArray[np.int64]) -> Tensor:
        """Return grey levels (k, channels, size, size) as float32; they travel to the device as bytes."""
        return self.ranks.tensor(planes(examples.gather(index))).float()
