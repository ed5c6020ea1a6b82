"""Footprint of a training: parameters, and memory of one process, counted before anything is allocated."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from imaging.errors import UserFault
from imaging.preprocess.slice import planes
from imaging.quantities import gib
from models.config import TrainConfig
from models.training.worker import TrainData

COPIES = 6
"""Of each weight: itself, its gradient, two moments of the optimizer, the moving average, and the best average."""
BACKWARD = 2
"""Activations are kept for the backward pass, whose gradients are as large at its widest place."""
PROCESS_BYTES = 600 * 2**20
"""Of a process with torch and its libraries."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Count of parameters, and estimated bytes of one process beside what it has loaded."""

    parameters: int
    state_bytes: int
    activation_bytes: int

    @property
    def process_bytes(self) -> int:
        """All bytes of a process."""
        return PROCESS_BYTES + self.state_bytes + BACKWARD * self.activation_bytes


def footprint(config: TrainConfig, data: TrainData) -> Footprint:
    """Return the footprint of one process, which has its share of a batch.

    The network is built on torch's meta device, which knows shapes and no values.
    """
    example = planes(data.train.gather(np.zeros(1, np.int64)))
    with torch.device("meta"):
        network = data.objective.build(config.network, example.shape[1])
    images = -(-config.batch_size // config.workers)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Footprint(
        parameters=parameters,
        state_bytes=4 * COPIES * parameters,
        activation_bytes=_activations(network, (images, *example.shape[1:])),
    )


def _activations(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the bytes of the outputs of all layers for images of a shape."""
    counted = 0

    def count(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal counted
        counted += output.numel() * output.element_size() if isinstance(output, Tensor) else 0

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if not [*layer.children()]]
    network.train()(torch.empty(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return counted


def free_bytes() -> int:
    """Return the memory that is free: on the GPU that training would use, else on this machine or in its container."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):
        limit, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        free = min(free, int(limit) - int(used))
    return int(free)


def check_fits(config: TrainConfig, data: TrainData, processes: int) -> Footprint:
    """Return the footprint of one process; raise UserFault where so many on this machine need more memory than is free.

    On GPUs each process has one of its own.
    """
    one, free = footprint(config, data), free_bytes()
    together = 1 if torch.cuda.is_available() else processes
    if one.process_bytes * together > free:
        raise UserFault(
            f"{config.network} with batches of {config.batch_size} needs about {gib(one.process_bytes)} in each of "
            f"{config.workers} processes, and {gib(free)} are free: lower batch_size, workers or the size of the "
            "images, or take a smaller network"
        )
    return one
