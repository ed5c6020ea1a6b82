"""Sandbox pools for tests, and helpers that make their items and shorten their outcomes."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

from imaging.dataset.ingest.prepare_files import prepare_payloads
from imaging.errors import DataFault
from imaging.formats.readers import FORMATS, Reader
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer, WorkerLimits
from imaging.sources.dispatch import Outcome, Run

QUICK = WorkerLimits(memory_mib=256, timeout_s=1)
MakePool = Callable[..., Pool]


@contextmanager
def pools() -> Iterator[MakePool]:
    """Yield a maker of pools that call `tests.sandbox_functions:act`; at the end none of their workers may run."""
    made: list[Pool] = []

    def make(**options: Any) -> Pool:
        made.append(
            Pool(
                "tests.sandbox_functions:act",
                {"colour": "blue"},
                **{"workers": 1, "limits": QUICK, **options},
            )
        )
        return made[-1]

    yield make
    for pool in made:
        pool.__exit__(None, None, None)
    assert not workers_of(os.getpid())


def in_process(setup: Mapping[str, Any], formats: Mapping[str, Reader] = FORMATS) -> Run:
    """Return a `Run` that works in this process, without the sandbox."""

    def run(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            value, blobs = prepare_payloads(setup, item.value, item.blobs, formats)
            yield Answer(value, tuple(memoryview(blob).cast("B") for blob in blobs))

    return run


def workers_of(pid: int) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(pid).children() if "imaging.sandbox.worker_loop" in child.cmdline()
    ]


def act(name: str, **value: Any) -> Item:
    return Item({"act": name, **value})


def shortened(outcome: Answer | DataFault) -> Any:
    """Return the value of an answer, or reason and detail of a fault."""
    return outcome.value if isinstance(outcome, Answer) else (outcome.reason, outcome.detail)


def outcomes(pool: Pool, *items: Item) -> list[Any]:
    return [shortened(outcome) for outcome in pool.map(items)]


def numbers(count: int) -> list[Item]:
    return [Item({"number": number}) for number in range(count)]
