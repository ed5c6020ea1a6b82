"""Optimizers, learning rate schedules, the moving average of weights, and statistics of batch normalisation."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from models.config import OptimizerConfig
from models.training.ranks import Ranks

WARM_UP = 0.25
"""The part of a one-cycle run in which the learning rate rises."""
START, END = 1 / 25, 1 / 2000
"""The learning rate at the start and at the end of a one-cycle run, as parts of the peak."""


def one_cycle(progress: float) -> float:
    """Rise and fall along half cosines, Smith and Topin 2018, https://arxiv.org/abs/1708.07120.

    >>> [round(one_cycle(progress), 4) for progress in (0.0, 0.25, 1.0)]
    [0.04, 1.0, 0.0005]
    """
    if progress < WARM_UP:
        return _between(START, 1.0, progress / WARM_UP)
    return _between(1.0, END, (progress - WARM_UP) / (1 - WARM_UP))


def _between(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {"one-cycle": one_cycle, "constant": lambda progress: 1.0}
"""From the part of the run that is done, 0..1, to a factor of the learning rate."""


def learning_rate_at(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the learning rate at a step of `steps`; a pure function, so that there is no state to save."""
    return config.learning_rate * SCHEDULES[config.schedule](step / max(1, steps - 1))


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer; weight decay touches matrices and kernels, not biases and normalisations."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.name](groups, config)


def _adamw(groups: list[dict[str, object]], config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _sgd(groups: list[dict[str, object]], config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
    )


OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd}


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
