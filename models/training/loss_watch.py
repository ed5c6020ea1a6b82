"""Watch over the losses of a run: one that is not finite stops it, with the keys of the examples.

The checkpoint of the epoch before is left as it was. The losses of several steps are looked at together, because a
look waits for the device and for the other ranks.
"""

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imaging.errors import UserFault
from models.training.batches import share
from models.training.worker import Worker

CHECK_STEPS = 16
"""The scaler of fp16 starts at 2**16 and halves its scale at each overflow: 16 in a row are not its affair."""
NAMED = 8
"""So many keys are named."""


@dataclass(slots=True)
class LossWatch:
    """Losses of the steps since the last look: epoch, step, global batch and this rank's part of the loss."""

    worker: Worker
    recent: list[tuple[int, int, NDArray[np.int64], Tensor]] = field(default_factory=list)
    last: tuple[int, int, NDArray[np.int64]] = field(init=False)
    """Epoch, step and global batch of the last step."""

    def add(self, epoch: int, step: int, batch: NDArray[np.int64], loss: Tensor) -> None:
        """Take in the loss of a step; raise UserFault if one of the last steps was not finite."""
        self.last = epoch, step, batch
        self.recent.append((epoch, step, batch, loss))
        if len(self.recent) == CHECK_STEPS:
            self._look()

    def end_epoch(self) -> None:
        """Raise UserFault unless all losses of the epoch and the weights after it are finite, on all ranks alike."""
        # A scaler keeps weights finite, and counts overflows in a row beyond the epoch.
        if self.worker.scaler.is_enabled():
            return
        if self.recent:
            self._look()
        if not all(bool(weights.isfinite().all()) for weights in self.worker.network.parameters()):
            epoch, step, batch = self.last
            self._stop(epoch, step, "the weights are not finite after", batch)

    def _look(self) -> None:
        ranks, recent = self.worker.ranks, self.recent
        self.recent = []
        broken = torch.zeros(len(recent), ranks.size, device=ranks.device)
        broken[:, ranks.rank] = 1 - torch.stack([loss for *_, loss in recent]).isfinite().float()
        broken_on = ranks.total(broken).cpu().numpy() > 0
        steps = broken_on.any(axis=1)
        if not steps.any() or (self.worker.scaler.is_enabled() and not steps.all()):
            return
        epoch, step, batch, _ = recent[first := int(steps.argmax())]
        part = share(len(batch), int(broken_on[first].argmax()), ranks.size)
        self._stop(epoch, step, "the loss is not finite in", batch[part])

    def _stop(self, epoch: int, step: int, what: str, rows: NDArray[np.int64]) -> NoReturn:
        train = self.worker.data.train
        keys = getattr(train, "instance_keys", np.arange(len(train)))[rows]
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
        raise UserFault(
            f"{what} epoch {epoch + 1}, step {step + 1}, with the examples {', '.join(map(str, keys[:NAMED]))}{more}; "
            f"{kept}: lower optimizer.learning_rate, set optimizer.clip_norm (1 is usual) or precision fp32"
        )
