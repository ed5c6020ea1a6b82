"""A folder tree of DICOM files: what is listed, what is read, and what is said of a file that is bad."""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import MediaStorageDirectoryStorage

from imaging.dataset.quarantine import IGNORED, REASONS
from imaging.errors import DataFault, EnvironmentFault
from imaging.preprocess import PreprocessSpec, Window
from imaging.sources.folder import DicomFolder
from imaging.sources.protocol import Instance, SourceFile
from tests.synthetic import write_dicom

PLANTED: dict[str, Any] = {
    "PatientName": "MUSTERMANN^ERIKA",
    "PatientID": "PID-48151623",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC-90210",
    "StudyInstanceUID": "1.2.826.0.1.11111",
    "SeriesInstanceUID": "1.2.826.0.1.22222",
    "SOPInstanceUID": "1.2.826.0.1.33333",
}


def names(root: Path) -> list[str]:
    return [file.name for file in DicomFolder(root).scan()]


def read(path: Path) -> Instance:
    status = path.stat()
    file = SourceFile(name=path.name, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    (found,) = DicomFolder(path.parent).read(file, "CT")
    return found


def fault(path: Path) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read(path)
    return caught.value


def touched(root: Path, *relative: str) -> Path:
    for name in relative:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_files_of_all_depths_are_listed(tmp_path: Path) -> None:
    found = names(touched(tmp_path, "IM1", "a/IM2", "a/b/c/IM3"))
    assert found == ["IM1", "a/IM2", "a/b/c/IM3"]


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    found = names(touched(tmp_path, "b", "a/z", "a.b", "a-b/c", "A", "10", "9"))
    assert found == sorted(found)


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
    assert list(DicomFolder(tmp_path).scan()) == [SourceFile(name="IM1", size_bytes=5, mtime_ns=7)]


def test_the_listing_begins_before_it_is_whole(tmp_path: Path) -> None:
    listing = DicomFolder(touched(tmp_path, "a/1", "b/2")).scan()
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
    gone = SourceFile(name="ERIKA/IM1", size_bytes=1, mtime_ns=1)
    with pytest.raises(EnvironmentFault) as caught:
        next(DicomFolder(tmp_path).read(gone, "CT"))
    assert "ERIKA" not in str(caught.value)


def test_an_image_is_read(tmp_path: Path) -> None:
    stored = np.arange(4096).reshape(64, 64)
    found = read(write_dicom(tmp_path / "IM1", stored, RescaleSlope=1, RescaleIntercept=-1024))
    np.testing.assert_array_equal(found.values, stored - 1024)


def test_an_image_keeps_its_identifiers(tmp_path: Path) -> None:
    found = read(write_dicom(tmp_path / "IM1", **PLANTED))
    told = (found.patient_id, found.study_uid, found.series_uid, found.sop_instance_uid)
    assert told == tuple(
        PLANTED[k] for k in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )


def test_an_image_is_named_by_the_bytes_of_its_file(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "IM1")
    assert read(path).content_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_image_says_how_it_wants_to_be_shown(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "IM1", WindowCenter=40, WindowWidth=400, PhotometricInterpretation="MONOCHROME1"
    )
    assert (read(path).window, read(path).inverted) == (Window(center=40, width=400), True)


def test_an_image_has_no_label_and_no_part(tmp_path: Path) -> None:
    found = read(write_dicom(tmp_path / "IM1"))
    assert (found.label, found.split) == (None, None)


def test_ct_is_what_a_folder_is_taken_for() -> None:
    assert DicomFolder("anywhere").default_spec() == PreprocessSpec()


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir"])
def test_a_directory_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    assert fault(touched(tmp_path, name) / name).reason == "dicomdir"


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "directory": ("dicomdir", {"SOPClassUID": MediaStorageDirectoryStorage}),
    "identifier": ("missing-identifier", {"PatientID": ""}),
    "uid": ("missing-identifier", {"SOPInstanceUID": "1.2.826.0.1.33333x"}),
    "modality": ("wrong-modality", {"Modality": "MR"}),
    "pixels": ("no-pixels", {"PixelData": None}),
    "colour": ("unsupported", {"SamplesPerPixel": 3}),
    "frames": ("unsupported", {"NumberOfFrames": 9}),
    "short": ("truncated", {"PixelData": bytes(100)}),
    "huge": ("undecodable", {"Rows": 9000, "Columns": 9000}),
    "bits": ("undecodable", {"BitsStored": 99}),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_says_why(tmp_path: Path, name: str) -> None:
    reason, changes = BAD[name]
    assert fault(write_dicom(tmp_path / "IM1", **PLANTED | changes)).reason == reason


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("name", BAD)
def test_a_fault_names_no_patient(tmp_path: Path, name: str) -> None:
    told = repr(fault(write_dicom(tmp_path / "IM1", **PLANTED | BAD[name][1])).args)
    assert not [value for value in (*PLANTED.values(), "MUSTERMANN", str(tmp_path)) if value in told]


def test_every_reason_is_known() -> None:
    assert {reason for reason, _ in BAD.values()} <= REASONS.keys() | IGNORED.keys()


@pytest.fixture(scope="session")
def real(data_dir: Path) -> Path:
    return data_dir / "ct-contrast"


@pytest.fixture(scope="module")
def cut(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], Path]:
    """Return a function that writes the beginning of a real file."""
    paths = sorted(real.glob("*.dcm"))
    folder = tmp_path_factory.mktemp("cut")

    def write(number: int, share: float) -> Path:
        whole = paths[number % len(paths)].read_bytes()
        (folder / "IM1").write_bytes(whole[: int(share * len(whole))])
        return folder / "IM1"

    return write


WIDE = hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@WIDE
@given(number=st.integers(0, 99), share=st.one_of(st.floats(0, 0.01), st.floats(0, 1, exclude_max=True)))
def test_a_real_file_cut_anywhere_is_a_fault(
    cut: Callable[[int, float], Path], number: int, share: float
) -> None:
    assert fault(cut(number, share)).reason in REASONS.keys() | IGNORED.keys()


@given(number=st.integers(0, 99), share=st.floats(0.02, 1, exclude_max=True))
def test_a_real_file_cut_in_its_pixels_is_truncated(
    cut: Callable[[int, float], Path], number: int, share: float
) -> None:
    assert fault(cut(number, share)).reason == "truncated"


def test_every_real_slice_is_read(real: Path) -> None:
    source = DicomFolder(real)
    outcomes = Counter[str]()
    for file in source.scan():
        try:
            outcomes.update(str(found.attributes["modality"]) for found in source.read(file, "CT"))
        except DataFault as bad:
            outcomes[bad.reason] += 1
    assert outcomes == {"CT": 100, "not-dicom": 1}


def test_real_slices_are_in_hounsfield_units(real: Path) -> None:
    # Air around the patient, as every scanner sees it; 3,000 and more are metal.
    lows = [np.percentile(read(path).values, 5) for path in sorted(real.glob("*.dcm"))[::10]]
    assert all(-3100 < low < -800 for low in lows)


def test_real_values_are_those_of_pydicom(real: Path) -> None:
    for path in sorted(real.glob("*.dcm"))[::9]:
        dataset = dcmread(path)
        expected = apply_modality_lut(dataset.pixel_array, dataset)
        np.testing.assert_allclose(read(path).values, expected, atol=1e-3)


def test_real_files_hold_the_instances_that_their_labels_name(real: Path) -> None:
    with (real / "labels.csv").open(newline="") as file:
        labelled = {row["SOPInstanceUID"] for row in csv.DictReader(file)}
    assert {read(path).sop_instance_uid for path in real.glob("*.dcm")} == labelled


def test_real_files_hold_five_instances_twice(real: Path) -> None:
    seen = Counter(read(path).sop_instance_uid for path in real.glob("*.dcm"))
    assert (len(seen), max(seen.values())) == (95, 2)
