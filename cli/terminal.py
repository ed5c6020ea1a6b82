"""Output of commands: results for a person or a program, progress, and logs without the libraries' noise."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.dispatch import verbosity
from imaging.errors import RadloopError

console = Console()
FILE_WIDTH = 200
"""Characters of a line where no terminal bounds it."""

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


def print_result(content: Any, rendered: RenderableType, as_json: bool) -> None:
    """Print the result of a command, as JSON or rendered, and nothing else on standard output."""
    if as_json:
        print(json.dumps(content, indent=1, default=str))
    else:
        wide = console if console.is_terminal else Console(width=FILE_WIDTH)
        wide.print(rendered, soft_wrap=True, highlight=False)


def result_alone(as_json: bool) -> AbstractContextManager[Any]:
    """Keep standard output for the JSON of a result: what else is printed meanwhile goes to standard error."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def note(text: str) -> None:
    """Print what goes on, or what to know beside the result, on standard error."""
    if not verbosity.quiet:
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print why a command has ended."""
    text = f"[bold red]error:[/bold red] {escape(message)}"
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show how far the work is, its rate and its expected end; yields `on_progress(done, total, size_bytes=0)`."""
    started = time.monotonic()
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    errors = Console(stderr=True)
    with Progress(
        *columns, console=errors, transient=True, disable=verbosity.quiet or not errors.is_terminal
    ) as progress:
        task = progress.add_task("", total=None, rate="")

        def on_progress(done: int, total: int, size_bytes: int = 0) -> None:
            seconds = max(time.monotonic() - started, 1e-9)
            megabytes = f", {size_bytes / seconds / 1e6:,.0f} MB/s" if size_bytes else ""
            progress.update(
                task, completed=done, total=total, rate=f"{done / seconds:,.0f} {unit}/s{megabytes}"
            )

        yield on_progress


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Show what is waited for."""
    with Console(stderr=True, quiet=verbosity.quiet).status(title):
        yield


class NoiseFilter(logging.Filter):
    """Filter of log lines that mean nothing to a user, and of traces of errors that have a message of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown."""
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        has_message = isinstance(error, RadloopError) or "Finished in state Failed" in text
        return not has_message and not text.startswith(NOISE)


def quiet_logs() -> None:
    """Let the console show progress lines alone, or what was asked for; the log that Prefect keeps stays complete."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
        if not verbosity.verbose:
            handler.addFilter(NoiseFilter())
        if verbosity.quiet:
            handler.setLevel(logging.ERROR)
    for name, level in LIBRARIES.items():
        logging.getLogger(name).setLevel(logging.INFO if verbosity.verbose else level)
