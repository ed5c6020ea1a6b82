"""Listing of a source in columns: the same whether its files come together or a few at a time."""

import os

import pytest

from imaging.dataset.ingest import listing
from imaging.dataset.ingest.listing import list_files
from imaging.pseudonyms import Pseudonyms
from imaging.sources.protocol import SourceFile

NAMES = Pseudonyms(b"k" * 32)
FILES = [
    SourceFile(name=name, size_bytes=size, mtime_ns=10 * size, tag=f"e{size}")
    for size, name in enumerate(["b/2", "a/1", os.fsdecode(b"M\xfcller/IM1"), " c ", "d"])
]


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_files_are_listed_as_they_come(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(listing, "AT_ONCE", at_once)
    listed = list_files(iter(FILES), NAMES)
    assert list(listed) == FILES
    assert listed.table["source_key"].to_pylist() == [NAMES.key("file", file.name) for file in FILES]


def test_a_source_without_files_is_an_empty_listing() -> None:
    assert list(list_files(iter(()), NAMES)) == []
