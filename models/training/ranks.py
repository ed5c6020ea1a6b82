"""Ranks: the place of a process among those that train together, and the sums over all of them."""

from dataclasses import dataclass, field

import torch
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

    def synchronised(self, network: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over all processes."""
        if self.size == 1:
            return network
        # The network's graph never changes, and running statistics are summed up once an epoch instead.
        return nn.parallel.DistributedDataParallel(
            network, forward_sync_buffers=False, gradient_as_bucket_view=True, static_graph=True
        )

    def share_cores(self) -> None:
        """Give this process its part of the machine's cores."""
        torch.set_num_threads(max(1, available_cores() // self.local_size))
