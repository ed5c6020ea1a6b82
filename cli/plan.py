"""Body of `radloop plan`: the plan of a training, in lines."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.flow_run import checked_request
from cli.options import as_request
from cli.terminal import note, print_result
from imaging.quantities import gib
from services.settings import activate
from services.training_plan import TrainingPlan, plan_training


def plan(config: Path | None, as_json: bool, **options: Any) -> None:
    """Print what a training would need; end with an error where it does not fit."""
    request = checked_request("train", config, as_request(options))
    note(f"Timing a few steps of {request.training.network}")
    made = plan_training(request, activate())
    table = Table(box=None, show_header=False)
    for row in _rows(made):
        table.add_row(*row)
    content = asdict(made) | {"epoch_s": made.epoch_s, "total_s": made.total_s}
    print_result(content, table, as_json)


def _rows(made: TrainingPlan) -> Iterator[tuple[str, str]]:
    yield (
        "dataset",
        f"{made.dataset}, version {made.digest[:12]}: {made.train:,} to train, {made.val:,} to validate",
    )
    yield "network", f"{made.network}, {made.parameters:,} parameters"
    yield (
        "memory",
        f"about {gib(made.process_bytes)} in each of {made.workers} processes ({gib(made.peak_bytes)} in the first "
        f"steps), {gib(made.free_bytes)} free",
    )
    yield "steps", f"{made.steps:,} in each of at most {made.epochs} epochs"
    yield (
        "time",
        f"{made.step_s * 1e3:.1f} ms a step, {made.epoch_s:.1f} s an epoch, at most {_duration(made.total_s)} in all",
    )
    yield "trains", f"no: version {made.trained} was made so" if made.trained else "yes"
    yield "a night without anything new skips", "; ".join(made.skipped)


def _duration(seconds: float) -> str:
    """Return seconds in the unit that a person reads.

    >>> _duration(59), _duration(600), _duration(9000)
    ('59 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
