"""Progress of work: a line with rate and expected end for each step, and a bar on Prefect's page."""

import time
from collections.abc import Callable
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from imaging.quantities import quantity

EVERY_S = 2.0
"""Seconds between two updates of the page, each of which is a request."""


def log_of(subject: str) -> Callable[[str], None]:
    """Return a log whose lines name their subject: in the log of a worker the lines of several runs are mixed.

    >>> log_of("chest")("24 files listed")
    chest: 24 files listed
    """
    # Looked up at each call: within a run Prefect puts its own in the place of print, and its lines reach the page.
    return lambda line: print(f"{subject}: {line}")


def progress(what: str, key: str, log: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return `on_progress(done, total)`, which logs rate and expected end and updates a bar on Prefect's page."""
    pace, show = Pace(what), page_bar(key)

    def on_progress(done: int, total: int) -> None:
        line = pace.line(done, total)
        log(line)
        show(100 * done / total if total else 100.0, line)

    return on_progress


def page_bar(key: str) -> Callable[[float, str], None]:
    """Return `show(percent, line)`, which updates a bar on Prefect's page now and then and at the end."""
    shown = time.monotonic()
    bar = list[Any]()

    def show(percent: float, line: str) -> None:
        nonlocal shown
        now = time.monotonic()
        # What is over at once needs no bar.
        if now - shown < EVERY_S and not (bar and percent == 100):
            return
        shown = now
        if bar:
            update_progress_artifact(bar[0], percent, description=line)
        else:
            bar.append(create_progress_artifact(percent, key=key, description=line))

    return show


class Pace:
    """Lines of work that goes on: how many items are done, the rate, and the seconds that are left.

    Until the first items are done workers are started, which says nothing of how fast they are; and the first of
    several workers end together. A rate is shown once some seconds have passed after that, and at the end.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock
        self._started = clock()
        self._first: tuple[int, float] | None = None

    def line(self, done: int, total: int) -> str:
        """Return the line, as "50/200 files, 5 files/s, 30 s left"."""
        what, now = self._what, self._clock()
        if not done:
            return f"{quantity(total, what)} to read"
        before, since = self._first = self._first or (done, now)
        if done == total:
            before, since = 0, self._started
        elif now - since < EVERY_S:
            return f"{done}/{total} {what}"
        rate = (done - before) / max(now - since, 1e-9)
        return f"{done}/{total} {what}, {rate:.0f} {what}/s, {(total - done) / max(rate, 1e-9):.0f} s left"
