"""Batches: the images that a worker sees at each step, and the scaling of grey levels for a network."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MIDDLE = 127.5
"""Grey levels 0..255 are mapped to -1..1."""


@dataclass(frozen=True, slots=True)
class ArrayExamples:
    """Examples in memory: images (n, size_px, size_px), labels (n,) and findings (n, f)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    findings: NDArray[np.int8] = field(default_factory=lambda: np.empty((0, 0), np.int8))

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images (k, size_px, size_px) of grey levels."""
        return self.images[index]


def seed_of(*key: int) -> int:
    """Return a seed that follows from the key alone, such as (seed, epoch, step).

    Every draw of a run comes from one, so a resumed run needs no saved generator state.
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1


def generator(*key: int) -> torch.Generator:
    """Return a generator with the seed of a key."""
    return torch.Generator().manual_seed(seed_of(*key))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of full global batches, at least one.

    >>> steps_per_epoch(100, 32), steps_per_epoch(10, 32)
    (3, 1)
    """
    return max(1, count // batch_size)


def epoch_batches(
    seed: int, epoch: int, count: int, batch_size: int, often: NDArray[np.float64] | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yield the global batches of one epoch: indices into `count` rows, shuffled anew for each epoch.

    What is left over after the last full batch sits out this epoch; the next one is shuffled differently. `often`
    says how often each row is drawn in the mean (count,), of sum `count`.
    """
    generated = generator(seed, epoch)
    order = torch.randperm(count, generator=generated).numpy()
    if often is not None:
        order = _repeated(order, often)[torch.randperm(count, generator=generated).numpy()]
    for step in range(steps_per_epoch(count, batch_size)):
        yield order[step * batch_size : (step + 1) * batch_size]


def _repeated(order: NDArray[np.int64], often: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return rows by systematic sampling: each as often as asked, rounded down or up by chance.

    Rows of one frequency stand together, so that a class too gets its share to within one.
    """
    order = order[np.argsort(often[order], kind="stable")]
    drawn = np.searchsorted(np.cumsum(often[order]), np.arange(len(order)) + 0.5)
    return order[np.minimum(drawn, len(order) - 1)]


def share(count: int, rank: int, size: int) -> slice:
    """Return the slice of a global batch of `count` that belongs to a rank; shares differ by at most one.

    >>> share(10, 0, 4), share(10, 3, 4)
    (slice(0, 2, None), slice(7, 10, None))
    """
    return slice(count * rank // size, count * (rank + 1) // size)


def normalise(levels: Tensor) -> Tensor:
    """Map grey levels 0..255 to -1..1; the exported model holds the same step."""
    return levels / MIDDLE - 1
