"""Pools of the sandbox for the tests, and short ways to fill them and to read what comes out."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from imaging.errors import DataFault
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.process import Answer, WorkerLimits

QUICK = WorkerLimits(memory_mib=256, timeout_s=1)
MakePool = Callable[..., Pool]


@contextmanager
def pools() -> Iterator[MakePool]:
    """Give what makes pools of the tests' function; afterwards none of their workers may run."""
    made: list[Pool] = []

    def make(**told: Any) -> Pool:
        made.append(
            Pool("tests.sandboxed:act", {"colour": "blue"}, **{"workers": 1, "limits": QUICK, **told})
        )
        return made[-1]

    yield make
    for pool in made:
        pool.__exit__(None, None, None)
    assert not workers_of(os.getpid())


def workers_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "imaging.sandbox.worker" in child.cmdline()]


def act(name: str, **value: Any) -> Item:
    return Item({"act": name, **value})


def told(outcome: Answer | DataFault) -> Any:
    """Say an outcome in short: the value, or reason and detail."""
    return outcome.value if isinstance(outcome, Answer) else (outcome.reason, outcome.detail)


def outcomes(pool: Pool, *items: Item) -> list[Any]:
    return [told(outcome) for outcome in pool.map(items)]


def numbers(count: int) -> list[Item]:
    return [Item({"number": number}) for number in range(count)]
