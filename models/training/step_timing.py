"""Timing of a few steps and a validation of a training, by as many processes as will train."""

import time
from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

from models.config import TrainConfig
from models.training.batches import steps_per_epoch
from models.training.footprint import check_fits, free_bytes
from models.training.launch import in_group, opened
from models.training.loop import train_step
from models.training.memory import peak_mb
from models.training.ranks import Ranks
from models.training.validation import validate
from models.training.worker import TrainData, Worker

WARM_UP, STEPS = 3, 8
"""Steps before and while it is timed: the first ones of a process load code and choose kernels."""


def time_steps(rank: int, size: int, meet: str, job: Mapping[str, Any]) -> dict[str, float]:
    """Return counts, bytes and seconds of a training as one process of its group; `job` as `opened` takes it.

    Weights and moments are thrown away. Seconds of validation are of one whole pass.
    """
    config, data = opened(job)
    free, one = free_bytes(), check_fits(config, data, size)
    needed = {"parameters": one.parameters, "process_bytes": one.process_bytes, "free_bytes": free}
    with in_group(rank, size, meet) as ranks:
        return needed | _timed(config, data, ranks)


def _timed(config: TrainConfig, data: TrainData, ranks: Ranks) -> dict[str, float]:
    ranks.share_cores()
    worker = Worker.start(config, data, ranks, None)
    batches = enumerate(islice(cycle(worker.batches(0)), WARM_UP + STEPS))
    for step, batch in batches:
        train_step(worker, 0, step, batch)
        if step + 1 == WARM_UP:
            begun = time.perf_counter()
    step_s = (time.perf_counter() - begun) / STEPS
    begun = time.perf_counter()
    validate(worker)
    return {
        "peak_bytes": int(1e6 * peak_mb(ranks.device)),
        "train": len(data.train),
        "val": len(data.val),
        "steps": steps_per_epoch(len(data.train), config.batch_size),
        "step_s": step_s,
        "validation_s": time.perf_counter() - begun,
    }
