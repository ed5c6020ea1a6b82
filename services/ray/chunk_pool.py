"""Pool of workers for chunks of items: on Ray, or in this process where the items are few."""

import json
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, TypeVar

from imaging.cores import available_cores
from imaging.errors import EnvironmentFault, RadloopError
from services.ray.cluster import local_ray
from services.ray.room import await_processor

CHUNK_ITEMS = 256
PIECES = 8
"""A chunk is cut into as many where each core has fewer chunks: progress is seen, and all cores end together."""
AHEAD = 2
"""Chunks begun per core: one that is worked on and one that waits."""
RETRIES = 3
"""How often a chunk is tried again when the process that works on it dies."""
STORE_BYTES = 128 << 20
"""Ray's store of objects holds names and rows alone; its default is a third of the memory."""

OPENED = ExitStack()
"""What a process of Ray holds open: the sandbox above all."""

T = TypeVar("T")
R = TypeVar("R")
Do = Callable[[Sequence[Any]], Any]
Factory = Callable[[Mapping[str, Any]], AbstractContextManager[Do]]
"""What "package.module:name" names: given the order, it opens what a worker needs and yields what does a chunk."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why a chunk could not be done: an error meant for a person, or where in the code it was."""

    error: RadloopError


def run_chunks(
    factory: str,
    order: Mapping[str, Any],
    items: Sequence[T],
    chunk_items: int = CHUNK_ITEMS,
    ray_from: int | None = None,
    here: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[tuple[Sequence[T], Any]]:
    """Yield each chunk of the items with its result, in their order, while later ones are worked on.

    `order` is what JSON knows; to it comes `cores`, how many a worker may use. Up to `ray_from` items (default: a
    chunk) are done in this process, with what is `here` in the order too, whatever it is. Only so many chunks are
    begun as keep the workers busy. Workers write what is large themselves: results travel. RadloopError: as a worker
    raised it; EnvironmentFault: a chunk has lost its worker again and again, or Ray had no processor for a first one.
    """
    if len(items) > (chunk_items if ray_from is None else ray_from):
        yield from _on_ray(factory, order, items, chunk_items)
    elif items:
        with resolve_name(factory)({**order, "cores": available_cores(), **here}) as do:
            # One worker has all cores, and none waits for another: a single chunk is cut, that progress is seen.
            size = chunk_items if len(items) > chunk_items else max(1, chunk_items // PIECES)
            for chunk in _pieces(items, size):
                yield chunk, do(chunk)


def one_behind(do: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what `do` makes of each item, one at a time in their order, while the next item is on its way."""
    with ThreadPoolExecutor(1) as thread:
        begun: Future[R] | None = None
        for item in items:
            if begun:
                yield begun.result()
            begun = thread.submit(do, item)
        if begun:
            yield begun.result()


def _cut(items: Sequence[T], chunk_items: int, workers: int) -> Iterator[Sequence[T]]:
    least = max(1, chunk_items // PIECES)
    return _pieces(items, min(chunk_items, max(least, len(items) // (PIECES * workers))))


def _pieces(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _on_ray(
    factory: str, order: Mapping[str, Any], items: Sequence[T], chunk_items: int
) -> Iterator[tuple[Sequence[T], Any]]:
    # Loaded here: few items are done without Ray.
    import ray

    text = json.dumps({**order, "cores": 1})
    with local_ray(available_cores(), STORE_BYTES):
        await_processor()
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_do_chunk)
        workers = int(ray.cluster_resources().get("CPU", 1))
        begun: deque[tuple[Sequence[T], Any]] = deque()
        try:
            for chunk in _cut(items, chunk_items, workers):
                begun.append((chunk, remote.remote(factory, text, chunk)))
                if len(begun) >= AHEAD * workers:
                    yield _result(ray, *begun.popleft())
            while begun:
                yield _result(ray, *begun.popleft())
        finally:
            for _, reference in begun:
                ray.cancel(reference, force=True)


def _result(ray: Any, chunk: Sequence[T], reference: Any) -> tuple[Sequence[T], Any]:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise EnvironmentFault(
            f"a chunk has lost its worker {RETRIES + 1} times ({type(error).__name__}): is there memory enough? "
            "Run again: what is done is done"
        ) from None
    if isinstance(result, Failure):
        raise result.error
    return chunk, result


def _do_chunk(factory: str, order: str, chunk: Sequence[Any]) -> Any:
    """Do a chunk in a worker of Ray; errors are returned, since Ray's own way prints them with all that they quote."""
    try:
        return _worker(factory, order)(chunk)
    except RadloopError as error:
        return Failure(error)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {at.name}, line {at.lineno}"
        return Failure(EnvironmentFault(f"a worker failed: {place}; run again, and if it stays tell us"))


@lru_cache(maxsize=1)
def _worker(factory: str, order: str) -> Do:
    """Open what a worker needs, once for all chunks of an order; it ends with the next order, or with the process."""
    OPENED.close()
    made: Factory = resolve_name(factory)
    return OPENED.enter_context(made(json.loads(order)))
