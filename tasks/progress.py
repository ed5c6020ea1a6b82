"""Owns how long work says that it goes on: a line in the terminal for each step, and a bar on Prefect's page."""

import time
from collections.abc import Callable
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

EVERY_S = 2.0
"""How often the page is told: each time is a request."""


def progress(what: str, key: str) -> Callable[[int, int], None]:
    """Return what is told how many items of how many are done; it prints rate and expected end, and shows a bar."""
    started = shown = time.monotonic()
    bar = list[Any]()

    def told(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        line = words(done, total, now - started, what)
        print(line)
        # What is over at once needs no bar.
        if now - shown < EVERY_S and not (bar and done == total):
            return
        shown = now
        share = 100 * done / total if total else 100.0
        if bar:
            update_progress_artifact(bar[0], share, description=line)
        else:
            bar.append(create_progress_artifact(share, key=key, description=line))

    return told


def words(done: int, total: int, seconds: float, what: str) -> str:
    """Return how far it is, how fast, and for how long.

    >>> words(50, 200, 10.0, "files")
    '50/200 files, 5 files/s, 30 s left'
    """
    if not done:
        return f"{total} {what} to read"
    rate = done / max(seconds, 1e-9)
    return f"{done}/{total} {what}, {rate:.0f} {what}/s, {(total - done) / rate:.0f} s left"
