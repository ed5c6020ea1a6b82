"""Owns the history of a run: one JSON line an epoch, readable while the run goes on."""

import json
from collections.abc import Mapping
from pathlib import Path

HISTORY = "history.jsonl"


def record(run_folder: Path, metrics: Mapping[str, float]) -> None:
    """Write an epoch's line; lines of this epoch and later ones, from before a resume, are replaced."""
    kept = [row for row in read_history(run_folder) if row["epoch"] < metrics["epoch"]]
    run_folder.mkdir(parents=True, exist_ok=True)
    partial = run_folder / f"{HISTORY}.partial"
    partial.write_text("".join(f"{json.dumps(row)}\n" for row in [*kept, dict(metrics)]))
    partial.replace(run_folder / HISTORY)


def read_history(run_folder: Path) -> list[dict[str, float]]:
    """Return the epochs so far, oldest first; empty before the first one is done."""
    path = run_folder / HISTORY
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
