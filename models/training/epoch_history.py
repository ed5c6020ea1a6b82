"""Progress of a training run: epochs done, the best one, and the history of what each epoch measured.

The history is one JSON line an epoch, readable while the run goes on. Nothing here needs torch.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from models.config import TrainConfig

HISTORY = "history.jsonl"
PROGRESS = "progress.json"
STEP = "step.json"
STEP_EVERY_S = 2.0
CHECKPOINT = "checkpoint"
"""The folder of a run's last checkpoint, where its processes are of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, and which epoch was the best; `best` sorts higher for better epochs."""

    epochs: int = 0
    best_epoch: int = -1
    best: tuple[float, ...] = ()

    def after(self, merit: tuple[float, ...]) -> "Progress":
        """Return the progress after one more epoch of this merit."""
        if merit > self.best:
            return Progress(epochs=self.epochs + 1, best_epoch=self.epochs, best=merit)
        return Progress(epochs=self.epochs + 1, best_epoch=self.best_epoch, best=self.best)

    def is_over(self, config: TrainConfig) -> bool:
        """Return whether all epochs are done, or too many have passed without a better one."""
        return self.epochs >= config.epochs or self.epochs - 1 - self.best_epoch >= config.patience

    def write(self, checkpoint: Path) -> None:
        """Write the progress into the folder of a checkpoint."""
        (checkpoint / PROGRESS).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, checkpoint: Path) -> "Progress":
        """Return how far the run was whose checkpoint this is."""
        stored = json.loads((checkpoint / PROGRESS).read_text())
        return cls(epochs=stored["epochs"], best_epoch=stored["best_epoch"], best=tuple(stored["best"]))


def record(run_folder: Path, metrics: Mapping[str, float]) -> None:
    """Write an epoch's line; lines of this epoch and later ones, from before a resume, are replaced."""
    kept = [row for row in read_history(run_folder) if row["epoch"] < metrics["epoch"]]
    run_folder.mkdir(parents=True, exist_ok=True)
    partial = run_folder / f"{HISTORY}.partial"
    partial.write_text("".join(f"{json.dumps(row)}\n" for row in [*kept, dict(metrics)]))
    partial.replace(run_folder / HISTORY)


@dataclass(slots=True)
class StepRecord:
    """Record of how far an epoch is, in a file that is written anew every `STEP_EVERY_S` at most."""

    run_folder: Path
    writes: bool = True
    """Whether this process writes for all."""
    since: float = field(default_factory=time.monotonic)
    """When it was last written."""
    _first: tuple[int, float] = (0, 0.0)

    def add(self, epoch: int, step: int, steps: int, batch_size: int) -> None:
        """Take in that so many steps of an epoch are done."""
        now = time.monotonic()
        if step == 1:
            self._first = (step, now)
        if not self.writes or now - self.since < STEP_EVERY_S:
            return
        self.since = now
        first, since = self._first
        rate = (step - first) * batch_size / max(now - since, 1e-9)
        partial = self.run_folder / f"{STEP}.partial"
        self.run_folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"epoch": epoch, "step": step, "steps": steps, "images_per_s": rate}))
        partial.replace(self.run_folder / STEP)


def read_step(run_folder: Path) -> dict[str, float]:
    """Return how far the epoch is that is trained; empty while none has taken long enough to be written."""
    path = run_folder / STEP
    return json.loads(path.read_text()) if path.exists() else {}


def read_history(run_folder: Path) -> list[dict[str, float]]:
    """Return the epochs so far, oldest first; empty before the first one is done."""
    path = run_folder / HISTORY
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def last_checkpoint(run_folder: Path) -> Path | None:
    """Return the last whole checkpoint of a run on this machine; None before the first epoch is done.

    Between two renames of `models.training.launch.keep_last`, it is the one before the last.
    """
    places = (run_folder / f"{CHECKPOINT}{ending}" for ending in ("", ".old"))
    return next((place for place in places if (place / PROGRESS).is_file()), None)
