"""Headers are looked at in batches, and a file that ends a worker costs itself alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from imaging.errors import DataFault
from imaging.formats.headers import BATCH_FILES, headers
from imaging.formats.peek import FUNCTION, glance
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome
from imaging.sources.folder_source import FolderSource
from tests.synthetic import write_dicom

pytestmark = pytest.mark.slow

FILES = 2 * BATCH_FILES + 3


@pytest.fixture
def folder(tmp_path: Path) -> FolderSource:
    for number in range(FILES):
        write_dicom(tmp_path / f"{number:03}", SOPInstanceUID=f"1.2.{number}")
    return FolderSource(tmp_path)


def here(items: Iterable[Item]) -> Iterator[Outcome]:
    """Do the work of the sandbox in this process; a file called 005 ends the worker that looks at it."""
    for item in items:
        if any(isinstance(blob, Path) and blob.name == "005" for blob in item.blobs):
            yield DataFault("decoder-crashed", "the worker ended with signal 11")
        else:
            yield Answer(*glance({}, item.value, item.blobs)[:1])


def test_each_file_is_told_once_with_its_own_header(folder: FolderSource) -> None:
    with Pool(FUNCTION, {}, workers=1) as pool:
        found = [
            (file.name, seen.attributes["SOPInstanceUID"])
            for file, seen in headers(folder, folder.scan(), pool.map)
        ]
    assert found == [(f"{number:03}", f"1.2.{number}") for number in range(FILES)]


def test_a_file_that_ends_a_worker_costs_itself_alone(folder: FolderSource) -> None:
    found = {file.name: seen.reason for file, seen in headers(folder, folder.scan(), here)}
    assert len(found) == FILES
    assert {name: reason for name, reason in found.items() if reason} == {"005": "decoder-crashed"}


def test_a_file_that_cannot_be_fetched_is_told_with_its_reason(folder: FolderSource) -> None:
    (folder.root / "DICOMDIR").write_bytes(b"x")
    found = {file.name: seen.reason for file, seen in headers(folder, folder.scan(), here)}
    assert (len(found), found["DICOMDIR"]) == (FILES + 1, "dicomdir")


def test_an_empty_source_has_no_headers(tmp_path: Path) -> None:
    assert list(headers(FolderSource(tmp_path), [], here)) == []
