"""Which kind of source a path is."""

from pathlib import Path

import numpy as np
import pytest

from imaging.errors import UserFault
from imaging.sources.folder import DicomFolder
from imaging.sources.medmnist import MedMnistFile
from imaging.sources.open import KINDS, open_source
from imaging.sources.protocol import Source


def test_a_folder_is_a_folder_of_dicom_files(tmp_path: Path) -> None:
    assert isinstance(open_source(tmp_path), DicomFolder)


@pytest.mark.parametrize("name", ["some.npz", "SOME.NPZ"])
def test_an_npz_file_is_medmnist(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        np.savez(file, train_images=np.zeros(1))
    assert isinstance(open_source(tmp_path / name), MedMnistFile)


def test_a_folder_called_npz_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "some.npz").mkdir()
    assert isinstance(open_source(tmp_path / "some.npz"), DicomFolder)


def test_a_path_may_be_text(tmp_path: Path) -> None:
    assert open_source(str(tmp_path)).kind == "dicom"


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scans").mkdir()
    assert open_source("~/scans").kind == "dicom"


def test_opening_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "some.npz").write_bytes(b"no archive")
    assert open_source(tmp_path / "some.npz").kind == "medmnist"


def test_a_path_that_is_not_there_is_told_with_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(
        UserFault, match=r"gone does not exist: give a folder of DICOM files or an \.npz file"
    ):
        open_source(tmp_path / "gone")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scans.zip").write_bytes(b"PK")
    with pytest.raises(UserFault, match="of no known kind"):
        open_source(tmp_path / "scans.zip")


def test_every_kind_names_its_source(tmp_path: Path) -> None:
    sources: list[Source] = [kind.open(tmp_path) for kind in KINDS.values()]
    assert [source.kind for source in sources] == list(KINDS)
