"""Dispatch of listed files to sandbox workers: each file is fetched here, read there, and outcomes keep the order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from imaging.errors import DataFault
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.protocol import Payload, Source, SourceFile

Outcome = Answer | DataFault
Run = Callable[[Iterable[Item]], Iterator[Outcome]]
"""Function that works on items and yields an outcome for each, in their order: a pool's `map`."""


def dispatch(
    source: Source,
    files: Iterable[SourceFile],
    run: Run,
    into: Callable[[SourceFile], Path | None] = lambda _: None,
) -> Iterator[tuple[SourceFile, Outcome]]:
    """Yield the outcome of each file, in their order; those that cannot be fetched come last.

    `into` returns the file that the worker writes its blobs to, None where they come with the answer; see `Item`.
    """
    refused: list[tuple[SourceFile, DataFault]] = []
    sent: deque[SourceFile] = deque()

    def items() -> Iterator[Item]:
        for file in files:
            try:
                item = as_item(source.fetch(file), into(file))
            except DataFault as fault:
                refused.append((file, fault))
            else:
                sent.append(file)
                yield item

    for outcome in run(items()):
        yield sent.popleft(), outcome
    yield from refused


def as_item(payload: Payload, into: Path | None = None) -> Item:
    """Return the item of the sandbox for a payload."""
    value = {
        "format": payload.format,
        "name": payload.name,
        "metadata": [list(pair) for pair in payload.metadata],
    }
    return Item(value, payload.contents, into)
