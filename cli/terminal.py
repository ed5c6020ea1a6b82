"""Owns what a person sees in the terminal: progress without the orchestrator's noise, then the outcome."""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from imaging.errors import RadloopError
from tasks.report import outcomes as words

NOISE = (
    "Beginning flow run",
    "Beginning subflow run",
    "Created task run",
    "Created subflow run",
    "Finished in state Completed",
    "View at ",
    "Starting temporary server",
    "Stopping temporary server",
    "Still processing items",
)
LIBRARIES = {
    "mlflow": logging.ERROR,
    "alembic": logging.WARNING,
    "ray": logging.ERROR,
    "httpx": logging.WARNING,
}


class Calm(logging.Filter):
    """Drops what says nothing to a user, and the traces of errors that have a message of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        told_by_us = isinstance(error, RadloopError) or "Finished in state Failed" in text
        return not told_by_us and not text.startswith(NOISE)


def quiet() -> None:
    """Let the console show progress lines alone; the log that Prefect keeps stays complete."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Calm())
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    for name, level in LIBRARIES.items():
        logging.getLogger(name).setLevel(level)


TELLERS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "ingest": words.ingest_words,
        "train": words.training_words,
        "evaluate": words.evaluation_words,
        "reevaluate": words.reevaluation_words,
    }
)


def tell(console: Console, name: str, outcome: Any, imports_s: float, flow_s: float) -> None:
    """Print an outcome and where the time went: loading, and the flow with what Prefect adds to it."""
    if name == "nightly":
        around = flow_s - sum(outcome.timings_s.values())
        outside = {"imports": imports_s, "Prefect's start and end": around}
        console.print(Markdown(words.nightly_words(outcome, outside)))
    else:
        console.print(Markdown(TELLERS[name](outcome)))
        console.print(f"took {imports_s:.1f} s to load and {flow_s:.1f} s to run", highlight=False)
