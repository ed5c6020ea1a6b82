"""Owns the way of many items through workers, hundreds at a time: on Ray, or in this process where they are few."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

CHUNK_ITEMS = 256
T = TypeVar("T")

Opened = AbstractContextManager[Callable[[Sequence[Any]], Any]]
Factory = Callable[[Mapping[str, Any]], Opened]
"""What "package.module:name" must name: given the order, it opens what a worker needs and yields what does a chunk."""


def run_chunks(
    factory: str, order: Mapping[str, Any], items: Sequence[T]
) -> Iterator[tuple[Sequence[T], Any]]:
    """Yield each chunk of the items with its result, in their order, while later ones are worked on."""
    raise NotImplementedError
