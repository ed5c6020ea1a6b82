"""Owns the timing of candidates in turn, so that what slows the machine slows them all."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Candidates = Mapping[str, Callable[[int], object]]
"""Name to a function of the number of the input: candidates see each input in turn."""


def interleave(candidates: Candidates, inputs: int, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call, in the same order for all candidates."""
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        for at in range(inputs):
            # The one that comes first meets colder caches: each takes its turn.
            names = list(candidates)
            turn = (number + at) % len(names)
            for name in names[turn:] + names[:turn]:
                started = time.perf_counter()
                candidates[name](at)
                took[name].append((time.perf_counter() - started) * 1e3)
    return took


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Return the median of the ratios of calls that stood beside each other."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def row(name: str, took: Mapping[str, list[float]], ours: str, target: float, other: str) -> str:
    """Return a line of a table: medians in ms, the speed as a multiple of the other's, and what is asked for."""
    reached = ratio(took[other], took[ours])
    verdict = "" if reached >= target else "  MISSED"
    mine, theirs = (statistics.median(took[one]) for one in (ours, other))
    return f"| {name} | {mine:.2f} ms | {other} {theirs:.2f} ms | {reached:.2f} x | at least {target:g} x{verdict} |"
