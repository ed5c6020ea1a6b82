"""Memory of a training: its peak, and the fault of a batch that does not fit."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from imaging.errors import UserFault
from models.config import TrainConfig

KB = 1024 if sys.platform != "darwin" else 1
"""Unit of the system's peak: kilobytes, on macOS bytes."""


def peak_mb(device: torch.device) -> float:
    """Return the most memory that this process has had so far, in MB (10^6 bytes): the GPU's, or its own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KB / 1e6


@contextmanager
def batch_in_memory(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Raise UserFault with the remedy where a step of the block runs out of memory.

    The fault of GPUs is written and not yet seen on one.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # Processors have no class of their own for it.
        if isinstance(error, RuntimeError) and not (
            isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
        ):
            raise
        passes = config.optimizer.accumulation
        images = -(-config.batch_size // (config.workers * passes))
        raise UserFault(
            f"a pass of {images} images does not fit in the memory of {device}: raise optimizer.accumulation (now "
            f"{passes}), which keeps the step as it is, or lower batch_size (now {config.batch_size}), the image's "
            "size, or take a smaller network"
        ) from error
