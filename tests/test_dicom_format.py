"""Reader of DICOM files: the contents of an instance, and the reasons of bad files."""

import csv
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

from imaging.errors import DataFault
from imaging.image.instance import Instance
from imaging.image.window import Window
from imaging.refusal_reasons import IGNORED, REASONS
from imaging.sources.folder_source import FolderSource
from imaging.sources.protocol import SourceFile
from tests.public_images import ct_of_pydicom
from tests.synthetic import read_file, write_dicom

PLANTED: dict[str, Any] = {
    "PatientName": "MUSTERMANN^ERIKA",
    "PatientID": "PID-48151623",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC-90210",
    "StudyInstanceUID": "1.2.826.0.1.11111",
    "SeriesInstanceUID": "1.2.826.0.1.22222",
    "SOPInstanceUID": "1.2.826.0.1.33333",
}


def read(path: Path) -> Instance:
    status = path.stat()
    file = SourceFile(name=path.name, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    (instance,) = read_file(FolderSource(path.parent), file)
    return instance


def fault(path: Path) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read(path)
    return caught.value


def test_an_image_is_read(tmp_path: Path) -> None:
    stored = np.arange(4096).reshape(64, 64)
    instance = read(write_dicom(tmp_path / "IM1", stored, RescaleSlope=1, RescaleIntercept=-1024))
    np.testing.assert_array_equal(instance.image.values, stored - 1024)


def test_an_image_keeps_its_identifiers(tmp_path: Path) -> None:
    instance = read(write_dicom(tmp_path / "IM1", **PLANTED))
    values = (instance.patient_id, instance.study_uid, instance.series_uid, instance.sop_instance_uid)
    assert values == tuple(
        PLANTED[k] for k in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )


def test_an_image_has_its_window_and_photometric(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "IM1", WindowCenter=40, WindowWidth=400, PhotometricInterpretation="MONOCHROME1"
    )
    instance = read(path).image
    assert (instance.vois, instance.inverted) == ((Window(center=40, width=400),), True)


def test_an_image_has_no_label_and_no_part(tmp_path: Path) -> None:
    instance = read(write_dicom(tmp_path / "IM1"))
    assert (instance.label, instance.split) == (None, None)


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "identifier": ("missing-identifier", {"PatientID": ""}),
    "uid": ("missing-identifier", {"SOPInstanceUID": "1.2.826.0.1.33333x"}),
    "modality": ("wrong-modality", {"Modality": "MR"}),
    "pixels": ("no-pixels", {"PixelData": None}),
    "colour": ("unsupported", {"SamplesPerPixel": 4}),
    "samples": ("truncated", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
    "frames": ("truncated", {"NumberOfFrames": 9}),
    "short": ("truncated", {"PixelData": bytes(100)}),
    "claim": ("truncated", {"Rows": 8000, "Columns": 8000}),
    "huge": ("too-large", {"Rows": 65535, "Columns": 65535}),
    "bits": ("undecodable", {"BitsStored": 99}),
    "window": ("unsupported", {"PhotometricInterpretation": "CMYK"}),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_has_its_reason(tmp_path: Path, name: str) -> None:
    reason, changes = BAD[name]
    assert fault(write_dicom(tmp_path / "IM1", **PLANTED | changes)).reason == reason


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("name", BAD)
def test_a_fault_names_no_patient(tmp_path: Path, name: str) -> None:
    values = repr(fault(write_dicom(tmp_path / "IM1", **PLANTED | BAD[name][1])).args)
    assert not [value for value in (*PLANTED.values(), "MUSTERMANN", str(tmp_path)) if value in values]


def test_a_directory_is_recognised_by_its_class_whatever_its_name(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "IM1", **PLANTED, SOPClassUID=MediaStorageDirectoryStorage)
    dataset = dcmread(path)
    del dataset.SOPClassUID  # a directory names its class in the file meta alone, PS3.3 F.3
    dataset.save_as(path)
    assert fault(path).args == ("dicomdir", "")


def test_every_reason_is_known() -> None:
    assert {reason for reason, _ in BAD.values()} <= REASONS.keys() | IGNORED.keys()


@pytest.fixture(scope="module")
def cut(ct_slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], Path]:
    """Return a function that writes the beginning of a real file."""
    paths = sorted(ct_slices.glob("*.dcm"))
    folder = tmp_path_factory.mktemp("cut")

    def write(number: int, share: float) -> Path:
        whole = paths[number % len(paths)].read_bytes()
        (folder / "IM1").write_bytes(whole[: int(share * len(whole))])
        return folder / "IM1"

    return write


WIDE = hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
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


def test_every_slice_is_read(ct_slices: Path) -> None:
    source = FolderSource(ct_slices)
    outcomes = Counter[str]()
    for file in source.scan():
        try:
            outcomes.update(str(instance.attributes["modality"]) for instance in read_file(source, file))
        except DataFault as bad:
            outcomes[bad.reason] += 1
    assert outcomes == {"CT": len(list(ct_slices.glob("*.dcm"))), "not-dicom": 1}


def test_slices_are_in_hounsfield_units(ct_slices: Path) -> None:
    # Air around the patient, as every scanner sees it; 3,000 and more are metal.
    lows = [np.percentile(read(path).image.values, 5) for path in sorted(ct_slices.glob("*.dcm"))[::10]]
    assert all(-3100 < low < -800 for low in lows)


def test_values_equal_pydicoms(ct_slices: Path) -> None:
    for path in [*ct_of_pydicom(), *sorted(ct_slices.glob("*.dcm"))[::9]]:
        dataset = dcmread(path)
        expected = apply_modality_lut(dataset.pixel_array, dataset)
        np.testing.assert_allclose(read(path).image.values, expected, atol=1e-3)


def test_files_have_the_instances_that_their_labels_name(ct_slices: Path) -> None:
    with (ct_slices / "labels.csv").open(newline="") as file:
        labelled = {row["SOPInstanceUID"] for row in csv.DictReader(file)}
    assert {read(path).sop_instance_uid for path in ct_slices.glob("*.dcm")} == labelled


def test_real_files_have_five_instances_twice(data_dir: Path) -> None:
    seen = Counter(read(path).sop_instance_uid for path in (data_dir / "ct-contrast").glob("*.dcm"))
    assert (len(seen), max(seen.values())) == (95, 2)


def test_a_file_that_is_there_twice_is_one_instance(made_up_slices: Path) -> None:
    paths = list(made_up_slices.glob("*.dcm"))
    assert len({read(path).sop_instance_uid for path in paths}) == len(paths) - 1
