"""Owns how long work says that it goes on: a line in the terminal for each step, and a bar on Prefect's page."""

import time
from collections.abc import Callable
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

EVERY_S = 2.0
"""How often the page is told: each time is a request."""


def progress(what: str, key: str) -> Callable[[int, int], None]:
    """Return what is told how many items of how many are done; it prints rate and expected end, and shows a bar."""
    pace, shown = Pace(what), time.monotonic()
    bar = list[Any]()

    def told(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        line = pace.line(done, total)
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


class Pace:
    """Says how far work is, how fast it goes and how long it lasts.

    Until the first items are done workers are started, which says nothing of how fast they are; and the first of
    several workers end together. A rate is told once some seconds have passed after that, and at the end.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock
        self._started = clock()
        self._first: tuple[int, float] | None = None

    def line(self, done: int, total: int) -> str:
        """Return it as "50/200 files, 5 files/s, 30 s left"."""
        what, now = self._what, self._clock()
        if not done:
            return f"{total} {what} to read"
        before, since = self._first = self._first or (done, now)
        if done == total:
            before, since = 0, self._started
        elif now - since < EVERY_S:
            return f"{done}/{total} {what}"
        rate = (done - before) / max(now - since, 1e-9)
        return f"{done}/{total} {what}, {rate:.0f} {what}/s, {(total - done) / max(rate, 1e-9):.0f} s left"
