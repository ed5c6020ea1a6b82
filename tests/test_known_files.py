"""Known files of masks: what stands as long as a file is as it was, and what is read again."""

import os
import time
from pathlib import Path

import pytest

from imaging.annotations.masks import known_files
from imaging.annotations.masks.known_files import KnownFiles
from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms
from imaging.store.content_digest import bytes_digest

KEY = Pseudonyms(b"k" * 32)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read from now on."""
    names: list[str] = []

    def digest(path: Path) -> str:
        names.append(path.name)
        return bytes_digest(path.read_bytes())

    monkeypatch.setattr(known_files, "file_digest", digest)
    return names


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file whose name tells of a patient."""
    path = tmp_path / "JONES^MARY.png"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be old enough: the time of change (ctime) cannot be set back."""
    now = time.time_ns
    monkeypatch.setattr(known_files.time, "time_ns", lambda: now() + 3_600_000_000_000)


def night(folder: Path, *files: Path) -> list[str]:
    known = KnownFiles(folder / "home" / "known.json", KEY)
    digests = [known.digest(file) for file in files]
    known.save()
    return digests


@pytest.mark.usefixtures("later")
def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path: Path, file: Path, read: list[str]) -> None:
    assert night(tmp_path, file) == night(tmp_path, file) == [bytes_digest(b"one")]
    assert read == [file.name]


@pytest.mark.usefixtures("later")
def test_a_file_of_another_time_is_read_again(tmp_path: Path, file: Path, read: list[str]) -> None:
    night(tmp_path, file)
    file.write_bytes(b"two")
    assert night(tmp_path, file) == [bytes_digest(b"two")]


@pytest.mark.usefixtures("later")
def test_a_copy_that_keeps_size_and_time_is_read_again(tmp_path: Path, file: Path, read: list[str]) -> None:
    night(tmp_path, file)
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"two")
    # As rsync -t and cp -p do; the listing of images would not see it.
    os.utime(file, ns=times)
    assert night(tmp_path, file) == [bytes_digest(b"two")]


def test_a_file_that_was_just_changed_is_not_known(tmp_path: Path, file: Path, read: list[str]) -> None:
    night(tmp_path, file)
    night(tmp_path, file)
    assert read == [file.name, file.name]


@pytest.mark.usefixtures("later")
def test_files_that_are_gone_are_forgotten_and_no_name_is_kept(tmp_path: Path, file: Path) -> None:
    other = file.with_name("b.png")
    other.write_bytes(b"b")
    night(tmp_path, file, other)
    kept = (tmp_path / "home" / "known.json").read_text()
    assert "JONES" not in kept
    night(tmp_path, other)
    assert KEY.key("file", str(file)) not in (tmp_path / "home" / "known.json").read_text()


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 0, "files": {}}', '{"format": 1, "files": []}']
)
def test_what_cannot_be_read_is_made_anew(tmp_path: Path, file: Path, content: str) -> None:
    night(tmp_path, file)
    (tmp_path / "home" / "known.json").write_text(content)
    assert night(tmp_path, file) == [bytes_digest(b"one")]


def test_a_place_that_cannot_be_written_is_a_fault_of_the_environment(tmp_path: Path, file: Path) -> None:
    (tmp_path / "home").write_text("a file")
    known = KnownFiles(tmp_path / "home" / "known.json", KEY)
    known.add(file, "series", [])
    known._lasting.add(KEY.key("file", str(file)))
    with pytest.raises(EnvironmentFault, match=r"known\.json cannot be written"):
        known.save()


def test_the_fault_of_a_file_that_is_gone_does_not_name_it(tmp_path: Path) -> None:
    known = KnownFiles(None, KEY)
    with pytest.raises(EnvironmentFault, match=r"^cannot read a file of masks \(No such file") as fault:
        known.digest(tmp_path / "JONES_1950.png")
    assert "JONES" not in str(fault.value)
