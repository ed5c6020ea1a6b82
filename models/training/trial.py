"""Trial of a search: one training by one process, which reports each epoch to Ray Tune and may be stopped by it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from imaging.cores import available_cores
from models.config import TrainConfig
from models.objectives.protocol import Objective
from models.training.launch import opened
from models.training.loop import fit
from models.training.ranks import Ranks

EPOCH, MERIT = "epoch", "merit"


def run_trial(given: Mapping[str, Any]) -> None:
    """Train alone, with the whole batch; `given` has the `job` as `opened` takes it, and its `run_folder`.

    Trials run side by side, so each has one core, or a GPU of its own.
    """
    job = given["job"]
    config, data = opened(job)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    ranks = Ranks(local_size=available_cores(), device=device)
    fit(config, data, ranks, Path(job["run_folder"]), partial(report_to_tune, data.objective, config))


def report_to_tune(
    objective: Objective, config: TrainConfig, metrics: Mapping[str, float], _: Path | None
) -> None:
    """Report what makes an epoch better; Ray Tune ends the trial here where others are ahead."""
    # Higher is better, and plain floats: numpy's end a run of Ray with an error (ray 2.60).
    merit = float(objective.merit(metrics, config.compared_by)[0])
    tune.report({EPOCH: int(metrics["epoch"]) + 1, MERIT: merit})
