"""Kind of source by its address."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from imaging.errors import DataFault, UserFault
from imaging.formats.readers import FORMATS
from imaging.sources.archive import Archive
from imaging.sources.folder_source import FolderSource
from imaging.sources.medmnist_file import MedMnistFile
from imaging.sources.open_source import KINDS, open_source
from imaging.sources.patients import Patients
from imaging.sources.protocol import SUFFIXES, format_of

PLACES = {
    "folder": "scans",
    "zip": "scans.zip",
    "tar": "scans.tar.gz",
    "s3": "s3://scans/ct",
    "dicomweb": "dicomweb+https://host:8042/dicom-web",
    "medmnist": "scans.npz",
}


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Return a folder with one place of each kind that is a path."""
    (tmp_path / "scans").mkdir()
    zipfile.ZipFile(tmp_path / "scans.zip", "w").close()
    for name in ("scans.tar", "scans.tar.gz", "scans.TGZ", "scans.tar.xz", "scans.tar.bz2"):
        tarfile.open(tmp_path / name, "w:gz").close()
    with (tmp_path / "scans.npz").open("wb") as file:
        np.savez(file, train_images=np.zeros(1))
    return tmp_path


def address(places: Path, name: str) -> str:
    return name if "://" in name else str(places / name)


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    assert isinstance(open_source(tmp_path), FolderSource)


@pytest.mark.parametrize("name", ["some.npz", "SOME.NPZ"])
def test_an_npz_file_is_medmnist(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        np.savez(file, train_images=np.zeros(1))
    assert isinstance(open_source(tmp_path / name), MedMnistFile)


@pytest.mark.parametrize("name", ["scans.tar", "scans.tar.gz", "scans.TGZ", "scans.tar.xz", "scans.tar.bz2"])
def test_a_tar_may_be_compressed(places: Path, name: str) -> None:
    source = open_source(places / name)
    assert isinstance(source, Archive)
    assert source.kind == "tar"


@pytest.mark.parametrize("name", ["some.npz", "some.zip", "some.tar"])
def test_a_folder_called_like_a_file_is_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert isinstance(open_source(tmp_path / name), FolderSource)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_opened_by_its_address(places: Path, kind: str) -> None:
    assert open_source(address(places, PLACES[kind])).kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_default_preparation(places: Path, kind: str) -> None:
    if kind != "medmnist":
        assert open_source(address(places, PLACES[kind])).default_spec().modality == "CT"


def test_a_path_may_be_text(tmp_path: Path) -> None:
    assert open_source(str(tmp_path)).kind == "folder"


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scans").mkdir()
    assert open_source("~/scans").kind == "folder"


@pytest.mark.parametrize("name", ["some.npz", "some.zip", "some.tar.xz"])
def test_opening_reads_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    assert open_source(tmp_path / name).kind in KINDS


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_path_that_is_not_there_is_reported_with_what_may_be_given(tmp_path: Path, kind: object) -> None:
    with pytest.raises(UserFault, match="gone does not exist: give a folder") as caught:
        open_source(tmp_path / "gone")
    assert getattr(kind, "title", None) in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scans.rar").write_bytes(b"Rar!")
    with pytest.raises(UserFault, match="of no known kind"):
        open_source(tmp_path / "scans.rar")


def test_an_address_of_another_scheme_is_refused_without_what_it_may_hide() -> None:
    with pytest.raises(UserFault, match=r"ftp://\.\.\. is of no known kind") as caught:
        open_source("ftp://erika:secret@host/scans")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "s3"])
def test_the_table_reaches_every_source_of_files(places: Path, kind: str) -> None:
    (places / "labels.csv").write_text("file,PatientID,label\na.png,P1,x\n")
    source = open_source(address(places, PLACES[kind]), places / "labels.csv")
    assert getattr(source, "patients", None) == Patients({"a.png": "P1"})


def test_a_picture_in_a_folder_comes_with_its_patient(tmp_path: Path) -> None:
    (tmp_path / "scans" / "d").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (tmp_path / "scans" / "d" / name).write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("file,PatientID,label\nd/a.png,P1,x\n")
    source = open_source(tmp_path / "scans", tmp_path / "labels.csv")
    first, second = source.scan()
    payload = source.fetch(first)
    assert (payload.format, payload.metadata) == ("picture", (("patient", "P1"),))
    with pytest.raises(DataFault) as caught:
        source.fetch(second)
    assert caught.value.reason == "missing-identifier"


def test_every_format_of_a_name_has_a_reader() -> None:
    assert {*SUFFIXES.values(), format_of("IM1")} <= FORMATS.keys()
