"""Journal of finished chunks: kept whole, read once, removed when a version has them."""

from pathlib import Path

import pyarrow as pa
import pytest

from imaging.dataset.ingest.journal import Journal
from imaging.dataset.tables.schemas import EXAMPLES
from imaging.store.folder_store import FolderStore
from imaging.store.protocol import Missing
from tests.synthetic import example, examples, refusal, refusals


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(FolderStore(tmp_path), "d", "key policy spec")


def rows(*numbers: int, bad: int = 99) -> tuple[pa.Table, pa.Table]:
    """Return the examples and the refusals of a chunk."""
    return examples(*(example(n) for n in numbers)), refusals(refusal(bad))


def test_a_finished_chunk_comes_back(journal: Journal) -> None:
    journal.add("one", *rows(0, 1))
    (known,) = journal.read(journal.chunks())
    assert (known.examples.select(EXAMPLES.names), known.refusals) == rows(0, 1)


def test_an_empty_journal_has_no_rows(journal: Journal) -> None:
    assert journal.read(journal.chunks()) == []


def test_each_chunk_keeps_its_rows(journal: Journal) -> None:
    journal.add("one", *rows(0, 1))
    journal.add("two", *rows(1, 2, bad=98))
    known = journal.read(journal.chunks())
    files = [chunk.examples.select(["source_key"])["source_key"].to_pylist() for chunk in known]
    assert files == [["f0", "f1"], ["f1", "f2"]]
    assert [chunk.refusals["source_key"].to_pylist() for chunk in known] == [["f99"], ["f98"]]


def test_a_chunk_that_was_cut_short_is_not_finished(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FolderStore.write

    def crash(self: FolderStore, name: str, content: bytes) -> None:
        if name.endswith(".examples.parquet"):
            raise KeyboardInterrupt
        whole(self, name, content)

    monkeypatch.setattr(FolderStore, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        journal.add("one", *rows(0))
    assert journal.chunks() == []


def test_chunks_that_were_made_otherwise_are_another_journals(journal: Journal) -> None:
    journal.add("one", *rows(0))
    assert Journal(journal.store, "d", "another key").chunks() == []


def test_dropped_chunks_are_gone(journal: Journal) -> None:
    journal.add("one", *rows(0))
    chunks = journal.chunks()
    journal.drop(chunks)
    journal.drop(chunks)
    assert journal.chunks() == []
    with pytest.raises(Missing):
        journal.read(chunks)
