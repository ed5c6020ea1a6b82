"""Optimizers, learning rate schedules, the moving average of weights, and statistics of batch normalisation."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.config import OptimizerConfig
from models.training.muon import Muon
from models.training.ranks import Ranks

START, END = 1 / 25, 1 / 2000
"""The learning rate at the start of a warm-up and at the end of a one-cycle run, as parts of the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Learning rate over a run, as a factor of the peak: it rises along half a cosine, and ends at `end`."""

    warm_up: float = 0.0
    """The part of the run in which it rises, unless the configuration has another."""
    end: float = 0.0


SCHEDULES: dict[str, Schedule] = {
    # Smith and Topin 2018, https://arxiv.org/abs/1708.07120.
    "one-cycle": Schedule(warm_up=0.25, end=END),
    # Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, (5), without restarts.
    "cosine": Schedule(),
    "constant": Schedule(end=1.0),
}


def learning_rate_at(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the learning rate at a step of `steps`; a pure function, so that there is no state to save.

    >>> config = OptimizerConfig(learning_rate=1)
    >>> [round(learning_rate_at(config, step, 5), 4) for step in (0, 1, 4)]
    [0.04, 1.0, 0.0005]
    """
    done, schedule = step / max(1, steps - 1), SCHEDULES[config.schedule]
    warm_up = schedule.warm_up if config.warm_up is None else config.warm_up
    if done < warm_up:
        return config.learning_rate * _between(START, 1.0, done / warm_up)
    return config.learning_rate * _between(1.0, schedule.end, (done - warm_up) / (1 - warm_up))


def _between(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer; weight decay touches matrices and kernels, not biases and normalisations."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.name](groups, config)


def _adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
    )


def _muon(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    matrices, rest = groups
    *hidden, output = matrices["params"]
    # The layer of the outputs is left to AdamW, Jordan et al. 2024.
    return Muon(
        [
            matrices | {"params": hidden, "momentum": config.momentum},
            matrices | {"params": [output]},
            rest,
        ],
        config.learning_rate,
    )


OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd, "muon": _muon}


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group, times its own rate where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("rate", 1.0)


def l1_norm(network: nn.Module) -> torch.Tensor:
    """Return the sum of absolute values of matrices and kernels."""
    return torch.stack(
        [parameter.abs().sum() for parameter in network.parameters() if parameter.ndim > 1]
    ).sum()


class WeightAverage:
    """The exponential moving average of a network's weights: the network that is evaluated and kept.

    The decay grows from 0 to its value, min(decay, step / (step + 10)), so that a short run does not remember
    its random start. A decay of 0 makes it a copy.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._pairs = list(zip(self.network.parameters(), network.parameters(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        kept = min(self._decay, step / (step + 10))
        averages, weights = (list(side) for side in zip(*self._pairs, strict=True))
        torch._foreach_lerp_(averages, weights, 1 - kept)


def batch_norms(network: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Yield the layers with running statistics."""
    yield from (layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[torch.Tensor], ranks: Ranks) -> None:
    """Make the running statistics anew from batches of normalised images, averaged over all processes.

    The statistics met on the way belong to other weights: a network may score 0.5 with them and 1.0 without.
    Networks without batch normalisation are left as they are.
    """
    layers = list(batch_norms(network))
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    network.train()
    for images in batches:
        network(images)
    network.eval()
    for layer in layers:
        for statistic in (layer.running_mean, layer.running_var):
            if statistic is not None:
                ranks.total(statistic).div_(ranks.size)
