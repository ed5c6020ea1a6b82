"""Timing of candidates in turn, so that a slow machine slows them all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Candidates = Mapping[str, Callable[[int], object]]
"""Name to a function of the number of the input."""


def interleave(candidates: Candidates, inputs: int, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call, in the same order for all candidates.

    In each round every candidate works through all inputs, one candidate after the other: as ingest does, which
    calls nothing else in between, so that nobody pays for what another left in the caches.
    """
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        names = list(candidates)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            for at in range(inputs):
                started = time.perf_counter()
                candidates[name](at)
                took[name].append((time.perf_counter() - started) * 1e3)
    return took


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Return the median of the ratios of calls of the same round and input."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def row(name: str, took: Mapping[str, list[float]], ours: str, target: float, other: str) -> str:
    """Return a line of a table: medians in ms, the speed as a multiple of the other's, and what is asked for."""
    reached = ratio(took[other], took[ours])
    verdict = "" if reached >= target else "  MISSED"
    mine, theirs = (statistics.median(took[one]) for one in (ours, other))
    return f"| {name} | {mine:.2f} ms | {other} {theirs:.2f} ms | {reached:.2f} x | at least {target:g} x{verdict} |"
