"""Owns how a command answers: a result for a person or for a program, and meanwhile how far it is."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console()
FILE_WIDTH = 200
"""Characters of a line where no terminal bounds it."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def answer(told: Any, shown: RenderableType, as_json: bool) -> None:
    """Print what a command found, to a program or to a person, and nothing else on standard output."""
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        wide = console if console.is_terminal else Console(width=FILE_WIDTH)
        wide.print(shown, soft_wrap=True, highlight=False)


@contextmanager
def bar(what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show how far it is, how fast it goes and when it ends; told gets how many of how many, and bytes so far."""
    started = time.monotonic()
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=None, rate="")

        def told(done: int, total: int, size_bytes: int = 0) -> None:
            seconds = max(time.monotonic() - started, 1e-9)
            megabytes = f", {size_bytes / seconds / 1e6:,.0f} MB/s" if size_bytes else ""
            progress.update(
                task, completed=done, total=total, rate=f"{done / seconds:,.0f} {unit}/s{megabytes}"
            )

        yield told


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for."""
    with Console(stderr=True).status(what):
        yield
