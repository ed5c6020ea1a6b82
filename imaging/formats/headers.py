"""Owns the headers of a source's files, looked at in batches: a message costs as much as a header."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from imaging.errors import DataFault
from imaging.formats.peek import Glance, as_glances
from imaging.sandbox.pool import Item
from imaging.sources.dispatch import Run
from imaging.sources.protocol import Payload, Source, SourceFile

BATCH_FILES = 32


def headers(
    source: Source, files: Iterable[SourceFile], run: Run, batch_files: int = BATCH_FILES
) -> Iterator[tuple[SourceFile, Glance]]:
    """Yield what the header of each file says; those that cannot be fetched, or end a worker, come last.

    `run` calls `imaging.formats.peek.glance`. Where a batch ends its worker, its files are looked at one by one.
    """
    refused: list[tuple[SourceFile, Glance]] = []
    sent: deque[list[SourceFile]] = deque()
    again: list[SourceFile] = []

    def items() -> Iterator[Item]:
        listed = iter(files)
        while batch := list(islice(listed, batch_files)):
            fetched = [(file, payload) for file, payload in _fetched(source, batch, refused)]
            if fetched:
                sent.append([file for file, _ in fetched])
                yield _item([payload for _, payload in fetched])

    for outcome in run(items()):
        group = sent.popleft()
        if not isinstance(outcome, DataFault):
            yield from zip(group, as_glances(outcome), strict=True)
        elif batch_files == 1:
            yield group[0], Glance(format="dicom", reason=outcome.reason)
        else:
            again += group
    if again:
        yield from headers(source, again, run, batch_files=1)
    yield from refused


def _fetched(
    source: Source, batch: Sequence[SourceFile], refused: list[tuple[SourceFile, Glance]]
) -> Iterator[tuple[SourceFile, Payload]]:
    for file in batch:
        try:
            yield file, source.fetch(file)
        except DataFault as fault:
            refused.append((file, Glance(format="dicom", reason=fault.reason)))


def _item(payloads: Sequence[Payload]) -> Item:
    formats = [payload.format for payload in payloads]
    return Item({"formats": formats}, tuple(payload.contents[0] for payload in payloads))
