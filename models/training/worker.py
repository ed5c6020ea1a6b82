"""One process's part of a training run: its network, optimizer and progress, and how it loads a batch."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imaging.errors import UserFault
from imaging.preprocess.slice import planes
from models.config import TrainConfig
from models.objectives.protocol import Objective, TrainingExamples
from models.training.augment import apply, draw
from models.training.batches import epoch_batches, generator, normalise, share, steps_per_epoch
from models.training.checkpoint import Weights, restore
from models.training.epoch_history import Progress
from models.training.optimization import WeightAverage, learning_rate_at, make_optimizer
from models.training.ranks import Ranks
from models.training.start import StartWeights, begin, set_depth_rates


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """The examples that training may see, and what is learned from them; the test split is not among them."""

    train: TrainingExamples
    val: TrainingExamples
    objective: Objective
    start: StartWeights | None = None
    """What the network begins with, where `TrainConfig.start` names weights."""


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
    objective: Objective
    weights: NDArray[np.float32]
    """The weight of each training example in the loss."""
    progress: Progress
    best: Weights

    @classmethod
    def start(cls, config: TrainConfig, data: TrainData, ranks: Ranks, resume_from: Path | None) -> "Worker":
        """Build this process's part of the run, from the seed or from a checkpoint.

        Raises UserFault if there are fewer training images than workers.
        """
        if len(data.train) < ranks.size:
            raise UserFault(f"{len(data.train)} training images for {ranks.size} workers: use fewer workers")
        torch.manual_seed(config.seed)
        channels = planes(data.train.gather(np.zeros(1, np.int64))).shape[1]
        objective = data.objective.fitted(data.train, config)
        network = objective.build(config.network, channels)
        if data.start:
            begin(network, config, objective.metadata(), data.start)
        network = network.to(ranks.device)
        # Channels last is 1.2 to 1.5 times as fast on processors, and what the convolutions of GPUs prefer.
        of_volumes = any(parameter.ndim == 5 for parameter in network.parameters())
        network = network.to(memory_format=torch.channels_last_3d if of_volumes else torch.channels_last)
        average = WeightAverage(network, config.ema_decay)
        optimizer = make_optimizer(network, config.optimizer)
        set_depth_rates(optimizer, network, config.start)
        progress, best = Progress(), Weights()
        if resume_from:
            progress, best = restore(resume_from, network, average.network, optimizer)
        return cls(
            config=config,
            data=data,
            ranks=ranks,
            network=network,
            model=ranks.synchronised(network),
            average=average,
            optimizer=optimizer,
            objective=objective,
            weights=objective.weights(data.train),
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
        return epoch_batches(self.config.seed, epoch, len(self.data.train), self.config.batch_size)

    def load(self, epoch: int, step: int, batch: NDArray[np.int64]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return this rank's share of a global batch, varied alike: normalised images and targets, on the device."""
        mine = share(len(batch), self.ranks.rank, self.ranks.size)
        drawn = draw(self.config.augment, len(batch), generator(self.config.seed, epoch, step))[mine]
        variation = drawn.to(self.ranks.device)
        images = normalise(apply(self.levels(self.data.train, batch[mine]), variation))
        arrays = self.objective.targets(self.data.train, batch[mine])
        targets = {name: torch.from_numpy(array).to(self.ranks.device) for name, array in arrays.items()}
        return images, self.objective.vary(targets, variation)

    def load_unvaried(self, batch: NDArray[np.int64]) -> Tensor:
        """Return this rank's share of a global batch as prediction will see it: normalised images alone."""
        mine = share(len(batch), self.ranks.rank, self.ranks.size)
        return normalise(self.levels(self.data.train, batch[mine]))

    def levels(self, examples: TrainingExamples, index: NDArray[np.int64]) -> Tensor:
        """Return grey levels (k, channels, size, size) as float32; they travel to the device as bytes."""
        return torch.from_numpy(planes(examples.gather(index))).to(self.ranks.device).float()

    def reduced_precision(self) -> AbstractContextManager[Any]:
        """Return the autocast of the forward pass; 'auto' leaves processors at fp32, where bf16 is slower."""
        device, precision = self.ranks.device.type, self.config.precision
        fast = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        wanted = precision == "bf16" or (precision == "auto" and fast)
        return torch.autocast(device, torch.bfloat16, enabled=wanted)
