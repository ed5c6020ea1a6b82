"""Dispatch of listed files to workers: each file gets its own outcome, and the order is kept."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from imaging.errors import DataFault
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome, as_item, dispatch
from imaging.sources.protocol import Payload, SourceFile
from tests.synthetic import MemorySource


class Fetched(MemorySource):
    """A source whose files that are faults cannot be fetched."""

    def fetch(self, file: SourceFile) -> Payload:
        self.read_names.append(file.name)
        content = self.files[file.name]
        if isinstance(content, DataFault):
            raise content
        return super().fetch(file)


def named(items: Iterable[Item]) -> Iterator[Outcome]:
    """Answer with the name of each item."""
    for item in items:
        yield Answer(item.value["name"], ())


def in_pairs(items: Iterable[Item]) -> Iterator[Outcome]:
    """Take two items before the first answer, as a pool does."""
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield Answer(waiting.pop(0).value["name"], ())
    yield from named(waiting)


def source_of(**files: str) -> Fetched:
    """Return a source of good files, and of those that are refused with a reason."""
    return Fetched({name: DataFault(reason) if reason else [] for name, reason in files.items()})


def outcomes(source: Fetched, run: object = named) -> list[tuple[str, str]]:
    """Return the name of each file with its outcome."""
    pairs = dispatch(source, source.scan(), run)  # type: ignore[arg-type]
    return [
        (file.name, outcome.reason if isinstance(outcome, DataFault) else str(outcome.value))
        for file, outcome in pairs
    ]


def test_each_file_has_its_own_outcome_in_the_order_of_the_listing() -> None:
    assert outcomes(source_of(a="", b="", c="")) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_files_that_cannot_be_fetched_come_last_in_their_order() -> None:
    source = source_of(a="archive-link", b="", c="dicomdir", d="")
    assert outcomes(source) == [("b", "b"), ("d", "d"), ("a", "archive-link"), ("c", "dicomdir")]


def test_a_refused_file_does_not_move_the_outcomes_of_others() -> None:
    source = source_of(a="", b="too-large", c="", d="", e="too-large", f="")
    assert outcomes(source, in_pairs)[:4] == [("a", "a"), ("c", "c"), ("d", "d"), ("f", "f")]


def test_all_refused_is_no_work() -> None:
    assert outcomes(source_of(a="too-large")) == [("a", "too-large")]


def test_no_files_have_no_outcomes() -> None:
    assert outcomes(source_of()) == []


def test_files_are_fetched_when_a_worker_takes_them() -> None:
    source = source_of(a="", b="", c="")
    next(dispatch(source, source.scan(), named))
    assert source.read_names == ["a"]


def test_each_item_says_where_what_is_made_of_it_goes() -> None:
    seen: list[Path | None] = []

    def look(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            seen.append(item.into)
            yield Answer(None)

    source = source_of(a="", b="too-large", c="")
    list(dispatch(source, source.scan(), look, lambda file: Path("/drafts") / file.name))
    list(dispatch(source, source.scan(), look))
    assert seen == [Path("/drafts/a"), Path("/drafts/c"), None, None]


def test_a_fault_of_a_worker_is_the_files_own() -> None:
    def crash(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            yield DataFault("decoder-crashed") if item.value["name"] == "b" else Answer("fine", ())

    assert outcomes(source_of(a="", b="", c=""), crash) == [
        ("a", "fine"),
        ("b", "decoder-crashed"),
        ("c", "fine"),
    ]


def test_an_item_has_the_payload_and_its_metadata() -> None:
    payload = Payload(format="picture", name="a.png", contents=(b"x",), metadata=(("patient", "P1"),))
    item = as_item(payload)
    assert item.value == {"format": "picture", "name": "a.png", "metadata": [["patient", "P1"]]}
    assert item.blobs == (b"x",)
