"""Ranks: the place of a process among those that train together, and the sums over all of them."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from imaging.cores import available_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """One of `size` processes, `local_size` of them on this machine; the default is to be alone."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes for all."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, the same bits on each; `values` is overwritten."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """Return an array on this process's device; to a GPU it goes by pinned memory, which waits for no kernel."""
        if self.device.type != "cuda":
            return torch.from_numpy(array).to(self.device)
        return torch.from_numpy(array).pin_memory().to(self.device, non_blocking=True)

    def synchronised(self, network: nn.Module, passes: int = 1) -> nn.Module:
        """Return a module whose backward pass averages gradients over all processes, in the last of some passes."""
        if self.size == 1:
            return network
        # The network's graph never changes, and running statistics are summed up once an epoch instead. A static
        # graph counts backward passes, of which most are not synchronised where gradients add up.
        return nn.parallel.DistributedDataParallel(
            network, forward_sync_buffers=False, gradient_as_bucket_view=True, static_graph=passes == 1
        )

    def share_cores(self) -> None:
        """Give this process its part of the machine's cores."""
        torch.set_num_threads(max(1, available_cores() // self.local_size))


def synchronised_if(model: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Return a block whose backward pass averages gradients over the processes, or keeps them for a later one."""
    if wanted or not isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext()
    kept: AbstractContextManager[None] = model.no_sync()
    return kept
