"""One chunk of de-identification: partial files that last, rows of what became of each file, and nothing in between."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imaging.deidentify.folder.deidentify_chunk import deidentify_chunk
from imaging.deidentify.folder.destination import partial_name
from imaging.deidentify.folder.file_ledger import LedgerEntry
from imaging.errors import DataFault, EnvironmentFault
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome, Run
from imaging.sources.folder_source import FolderSource
from tests.json_objects import deidentify, write_object

KEY = Pseudonyms(b"k" * 32)
SETUP = {"secret": KEY.secret.hex()}


def sandbox(items: Iterable[Item]) -> Iterator[Outcome]:
    """Do here what workers of the sandbox do with objects of `tests.json_objects`."""
    for item in items:
        value, blobs = deidentify(SETUP, item.value, item.blobs)
        assert item.into is not None
        if blobs:
            item.into.write_bytes(b"".join(blobs))
        yield Answer(value)


def failing_at(name: str) -> Run:
    """Return a sandbox in which a worker dies while it writes the output of one file."""

    def run(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            if item.value["name"] != name:
                yield from sandbox([item])
            else:
                assert item.into is not None
                item.into.write_bytes(b"half")
                yield DataFault("decoder-crashed")

    return run


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(3):
        write_object(tmp_path / "archive", f"{number}", f"P{number}", f"1.2.{number + 1}", body=str(number))
    write_object(tmp_path / "archive", "3", instance="1.9", body="!truncated")
    return tmp_path / "archive"


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    (tmp_path / "partial").mkdir()
    return tmp_path / "partial"


def done(archive: Path, partial: Path, run: Run = sandbox) -> tuple[LedgerEntry, ...]:
    source = FolderSource(archive)
    return deidentify_chunk(source, tuple(source.scan()), KEY, partial, run)


def bodies(partial: Path) -> dict[str, str]:
    """Return the body in each partial file, by its name."""
    read: Callable[[Path], Any] = lambda path: json.loads(path.read_bytes()[: path.stat().st_size // 2000])  # noqa: E731
    return {path.name: read(path)["body"] for path in partial.glob("*.dcm")}


def test_each_object_has_a_partial_file_under_the_key_of_its_source(archive: Path, partial: Path) -> None:
    done(archive, partial)
    assert bodies(partial) == {partial_name(KEY.key("file", str(number))): str(number) for number in range(3)}


def test_rows_come_in_the_order_of_the_source(archive: Path, partial: Path) -> None:
    rows = done(archive, partial)
    assert [row.source_key for row in rows] == [KEY.key("file", str(number)) for number in range(4)]
    assert [row.reason for row in rows] == ["", "", "", "truncated"]


def test_a_chunk_leaves_partial_files_and_nothing_else(archive: Path, partial: Path) -> None:
    done(archive, partial)
    assert {path.suffix for path in partial.iterdir()} == {".dcm"}


def test_half_an_output_is_no_partial_file(archive: Path, partial: Path) -> None:
    rows = done(archive, partial, failing_at("1"))
    assert [row.reason for row in rows] == ["", "decoder-crashed", "", "truncated"]
    assert sorted(bodies(partial).values()) == ["0", "2"]


def test_a_partial_file_has_its_name_only_when_it_is_on_the_disk(
    archive: Path, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.add(os.fstat(number).st_ino), fsync(number)))
    replace = Path.replace

    def look(path: Path, target: Path) -> Path:
        assert path.stat().st_ino in synced
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", look)
    done(archive, partial)
    assert len(bodies(partial)) == 3
    assert partial.stat().st_ino in synced


def test_a_worker_that_was_left_behind_never_writes_into_a_partial_file(archive: Path, partial: Path) -> None:
    """The next try writes to other paths than the first."""
    targets: list[Path | None] = []

    def look(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            targets.append(item.into)
            yield from sandbox([item])

    done(archive, partial, look)
    done(archive, partial, look)
    assert len(set(targets)) == 8
    assert not {path.name for path in targets if path} & set(bodies(partial))


def test_a_disk_that_is_full_stops_the_chunk(
    archive: Path, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="make room"):
        done(archive, partial)
    assert bodies(partial) == {}
