"""Dispatch of listed files to workers: each file gets its own outcome, and batches keep the order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from imaging.errors import DataFault
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome, Run, dispatch
from imaging.sources.protocol import Payload, SourceFile
from tests.synthetic import MemorySource


class PartlyReadable(MemorySource):
    """A source whose files that are faults cannot be fetched."""

    def fetch(self, file: SourceFile) -> Payload:
        self.read_names.append(file.name)
        content = self.files[file.name]
        if isinstance(content, DataFault):
            raise content
        return super().fetch(file)


def item_of(payloads: Sequence[Payload]) -> Item:
    return Item({"names": [payload.name for payload in payloads]})


def answer(items: Iterable[Item]) -> Iterator[Outcome]:
    """Answer with the names of each item."""
    for item in items:
        yield Answer(item.value["names"], ())


def answer_late(items: Iterable[Item]) -> Iterator[Outcome]:
    """Take two items before the first answer, as a pool does."""
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield from answer([waiting.pop(0)])
    yield from answer(waiting)


def crash_at(*names: str) -> Run:
    """Return a run in which items with one of these files end their worker."""

    def run(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            if {*names} & {*item.value["names"]}:
                yield DataFault("decoder-crashed")
            else:
                yield Answer(item.value["names"], ())

    return run


def source_of(**files: str) -> PartlyReadable:
    """Return a source of good files, and of those that are refused with a reason."""
    return PartlyReadable({name: DataFault(reason) if reason else [] for name, reason in files.items()})


def outcomes(source: PartlyReadable, run: Run = answer, batch_files: int = 1) -> list[tuple[str, str]]:
    """Return the names of each batch with its outcome."""
    return [
        (
            "".join(file.name for file in batch),
            outcome.reason if isinstance(outcome, DataFault) else "".join(outcome.value),
        )
        for batch, outcome in dispatch(source, source.scan(), run, item_of, batch_files)
    ]


def test_each_file_has_its_own_outcome_in_the_order_of_the_listing() -> None:
    assert outcomes(source_of(a="", b="", c="")) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_files_that_cannot_be_fetched_come_last_in_their_order() -> None:
    source = source_of(a="archive-link", b="", c="dicomdir", d="")
    assert outcomes(source) == [("b", "b"), ("d", "d"), ("a", "archive-link"), ("c", "dicomdir")]


def test_a_refused_file_does_not_move_the_outcomes_of_others() -> None:
    source = source_of(a="", b="too-large", c="", d="", e="too-large", f="")
    assert outcomes(source, answer_late)[:4] == [("a", "a"), ("c", "c"), ("d", "d"), ("f", "f")]


def test_all_refused_is_no_work() -> None:
    assert outcomes(source_of(a="too-large")) == [("a", "too-large")]


def test_no_files_have_no_outcomes() -> None:
    assert outcomes(source_of()) == []


def test_files_are_fetched_when_a_worker_takes_them() -> None:
    source = source_of(a="", b="", c="")
    next(dispatch(source, source.scan(), answer, item_of))
    assert source.read_names == ["a"]


def test_a_fault_of_a_worker_is_the_files_own() -> None:
    assert outcomes(source_of(a="", b="", c=""), crash_at("b")) == [
        ("a", "a"),
        ("b", "decoder-crashed"),
        ("c", "c"),
    ]


def test_batches_keep_the_order_and_leave_out_what_cannot_be_fetched() -> None:
    source = source_of(a="", b="too-large", c="", d="", e="")
    assert outcomes(source, batch_files=3) == [("acd", "acd"), ("e", "e"), ("b", "too-large")]


def test_a_batch_that_ends_its_worker_is_tried_again_file_by_file() -> None:
    source = source_of(a="", b="", c="", d="dicomdir", e="")
    assert outcomes(source, crash_at("b"), batch_files=2) == [
        ("ce", "ce"),
        ("d", "dicomdir"),
        ("a", "a"),
        ("b", "decoder-crashed"),
    ]


def test_a_batch_ends_with_the_file_that_reaches_the_bytes() -> None:
    source = source_of(a="", b="", c="")
    listed = [replace(file, size_bytes=size) for file, size in zip(source.scan(), (2, 5, 1), strict=True)]
    batches = [[file.name for file in batch] for batch, _ in dispatch(source, listed, answer, item_of, 9, 6)]
    assert batches == [["a", "b"], ["c"]]
