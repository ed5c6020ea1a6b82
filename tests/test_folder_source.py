"""Folder tree as a source: the files that it lists and hands over."""

import os
from pathlib import Path

import pytest

from imaging.errors import DataFault, EnvironmentFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources import folder_source
from imaging.sources.folder_source import FolderSource
from imaging.sources.protocol import SourceFile


def names(root: Path) -> list[str]:
    return [file.name for file in FolderSource(root).scan()]


def listed(name: str) -> SourceFile:
    return SourceFile(name=name, size_bytes=1, mtime_ns=1)


def touched(root: Path, *relative: str) -> Path:
    for name in relative:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_files_of_all_depths_are_listed(tmp_path: Path) -> None:
    listed_names = names(touched(tmp_path, "IM1", "a/IM2", "a/b/c/IM3"))
    assert listed_names == ["IM1", "a/IM2", "a/b/c/IM3"]


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    listed_names = names(touched(tmp_path, "b", "a/z", "a.b", "a-b/c", "A", "10", "9"))
    assert listed_names == sorted(listed_names)


def test_whatever_a_file_is_called_it_is_listed(tmp_path: Path) -> None:
    assert names(touched(tmp_path, "DICOMDIR", "notes.txt", ".hidden")) == [
        ".hidden",
        "DICOMDIR",
        "notes.txt",
    ]


def test_an_empty_folder_lists_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert names(tmp_path) == []


def test_a_file_is_listed_with_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(b"12345")
    os.utime(tmp_path / "IM1", ns=(7, 7))
    assert list(FolderSource(tmp_path).scan()) == [SourceFile(name="IM1", size_bytes=5, mtime_ns=7)]


def test_the_listing_begins_before_it_is_whole(tmp_path: Path) -> None:
    listing = FolderSource(touched(tmp_path, "a/1", "b/2")).scan()
    next(listing)
    touched(tmp_path, "b/3")
    assert [file.name for file in listing] == ["b/2", "b/3"]


def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    touched(tmp_path, "outside", "root/IM1")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    assert names(tmp_path / "root") == ["IM1"]


def test_a_link_within_the_tree_is_listed(tmp_path: Path) -> None:
    touched(tmp_path, "a/IM1")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "IM1")
    assert names(tmp_path) == ["a/IM1", "link"]


def test_a_linked_folder_is_not_entered(tmp_path: Path) -> None:
    touched(tmp_path, "a/IM1")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert names(tmp_path) == ["a/IM1"]


@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_link_that_leads_nowhere_is_left_out(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / target)
    assert names(tmp_path) == []


def test_a_pipe_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == []


def test_a_root_that_is_a_link_is_opened(tmp_path: Path) -> None:
    touched(tmp_path, "real/IM1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(tmp_path / "link") == ["IM1"]


def test_a_folder_that_is_gone_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="No such file or directory"):
        names(tmp_path / "gone")


def test_a_file_that_cannot_be_read_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        FolderSource(tmp_path).fetch(listed("ERIKA/IM1"))
    assert "ERIKA" not in str(caught.value)


def test_a_file_is_handed_over_as_its_path(tmp_path: Path) -> None:
    payload = FolderSource(touched(tmp_path, "a/IM1")).fetch(listed("a/IM1"))
    assert (payload.format, payload.name, payload.contents) == ("dicom", "a/IM1", (tmp_path / "a" / "IM1",))


@pytest.mark.parametrize("name", ["DICOMDIR", "a/dicomdir"])
def test_a_directory_of_dicom_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFault) as caught:
        FolderSource(touched(tmp_path, name)).fetch(listed(name))
    assert caught.value.reason == "dicomdir"


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "IM1").open("wb") as file:
        file.truncate(folder_source.LIMITS.file_bytes + 1)  # a hole: it takes no room
    with pytest.raises(DataFault) as caught:
        FolderSource(tmp_path).fetch(listed("IM1"))
    assert caught.value.reason == "too-large"


def test_ct_is_what_a_folder_is_taken_for() -> None:
    assert FolderSource("anywhere").default_spec() == PreprocessSpec()
