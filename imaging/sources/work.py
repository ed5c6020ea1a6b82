"""Owns the way of listed files through workers: fetched here, read there, back in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from imaging.errors import DataFault
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.protocol import Payload, Source, SourceFile

Outcome = Answer | DataFault
Run = Callable[[Iterable[Item]], Iterator[Outcome]]
"""What works on items and yields an outcome for each, in their order: a pool's `map`."""


def work(
    source: Source,
    files: Iterable[SourceFile],
    run: Run,
    into: Callable[[SourceFile], Path | None] = lambda _: None,
) -> Iterator[tuple[SourceFile, Outcome]]:
    """Yield what became of each file, in their order; those that cannot even be fetched come last.

    `into` says where the worker writes what it makes of a file, if not into its answer; see `Item`.
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
    """Return a payload as what the sandbox takes."""
    value = {
        "format": payload.format,
        "name": payload.name,
        "metadata": [list(pair) for pair in payload.metadata],
    }
    return Item(value, payload.contents, into)
