"""Dispatch of listed files to sandbox workers: files are fetched here and read there, in batches, in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf

from imaging.errors import DataFault
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.protocol import Payload, Source, SourceFile

Outcome = Answer | DataFault
Run = Callable[[Iterable[Item]], Iterator[Outcome]]
"""Function that works on items and yields an outcome for each, in their order: a pool's `map`."""

Fetched = tuple[SourceFile, Payload]


def dispatch(
    source: Source,
    files: Iterable[SourceFile],
    run: Run,
    item_of: Callable[[Sequence[Payload]], Item],
    batch_files: int = 1,
    batch_bytes: float = inf,
) -> Iterator[tuple[Sequence[SourceFile], Outcome]]:
    """Yield batches of files with their outcomes, in the order of the files.

    `item_of` makes the item of a batch, which has at most `batch_files` files and ends with the one that reaches
    `batch_bytes`. A DataFault is always that of one file: files that cannot be fetched come after all batches, and
    then the files of each batch that ended its worker, tried again one by one.
    """
    refused: list[tuple[Sequence[SourceFile], DataFault]] = []
    sent: deque[Sequence[SourceFile]] = deque()
    again: list[SourceFile] = []

    def fetched() -> Iterator[Fetched]:
        for file in files:
            try:
                payload = source.fetch(file)
            except DataFault as fault:
                refused.append(([file], fault))
            else:
                yield file, payload

    def items() -> Iterator[Item]:
        for batch in _batches(fetched(), batch_files, batch_bytes):
            sent.append([file for file, _ in batch])
            yield item_of([payload for _, payload in batch])

    for outcome in run(items()):
        batch = sent.popleft()
        if isinstance(outcome, DataFault) and len(batch) > 1:
            again.extend(batch)
        else:
            yield batch, outcome
    yield from refused
    if again:
        yield from dispatch(source, again, run, item_of)


def _batches(files: Iterable[Fetched], batch_files: int, batch_bytes: float) -> Iterator[list[Fetched]]:
    batch: list[Fetched] = []
    size = 0
    for file, payload in files:
        batch.append((file, payload))
        size += max(file.size_bytes, sum(len(one) for one in payload.contents if isinstance(one, bytes)))
        if len(batch) == batch_files or size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
