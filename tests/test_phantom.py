"""The made-up hospital is valid, repeatable, and read back to what was painted."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from imaging.errors import DataFault
from imaging.image.instance import Instance
from imaging.phantom.ct_object import ENCODINGS, VENDORS, WINDOW
from imaging.phantom.phantom_archive import PhantomDay, write_phantom
from imaging.phantom.schedule import PhantomSpec, studies
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.folder_source import FolderSource
from tests.synthetic import read_file

SMALL = PhantomSpec(patients=24, new_patients=4, returning=2, slices=2, size_px=64)
SHOWN = PreprocessSpec(window=WINDOW, size_px=64)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PhantomDay, PhantomDay]:
    folder = tmp_path_factory.mktemp("phantom")
    return folder, write_phantom(folder, SMALL, day=1), write_phantom(folder, SMALL, day=2)


def content(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_all(folder: Path) -> tuple[list[Instance], Counter[str]]:
    """Return the readable images below a folder, and why others are refused."""
    source, instances, refused = FolderSource(folder / "dicom"), [], Counter[str]()
    for file in source.scan():
        try:
            instances += read_file(source, file)
        except DataFault as fault:
            refused[fault.reason] += 1
    return instances, refused


def headers(folder: Path) -> list[pydicom.Dataset]:
    names = sorted(path for path in (folder / "dicom").rglob("IM*"))
    return [pydicom.dcmread(name, stop_before_pixels=True) for name in names]


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    tiny = PhantomSpec(patients=4, slices=1, size_px=32)
    for name in ("one", "two"):
        write_phantom(tmp_path / name, tiny)
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(tmp_path: Path) -> None:
    days = [write_phantom(tmp_path / str(workers), SMALL, workers=workers) for workers in (1, 2)]
    assert days[0] == days[1]
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_another_seed_writes_other_images(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_phantom(tmp_path / str(seed), PhantomSpec(seed=seed, patients=4, slices=1, size_px=32))
    assert not set(content(tmp_path / "0/masks")) & set(content(tmp_path / "1/masks"))


def test_the_second_day_leaves_the_files_of_the_first_alone(tmp_path: Path) -> None:
    write_phantom(tmp_path, SMALL, day=1)
    before = content(tmp_path / "dicom")
    write_phantom(tmp_path, SMALL, day=2)
    after = content(tmp_path / "dicom")
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


def test_a_day_written_twice_changes_no_file(tmp_path: Path) -> None:
    for day in (1, 2):
        write_phantom(tmp_path, SMALL, day=day)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_phantom(tmp_path, SMALL, day=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_every_vendor_meets_every_encoding() -> None:
    spec = PhantomSpec(patients=60)
    pairs = {(s.number % len(VENDORS), s.number // len(VENDORS) % len(ENCODINGS)) for s in studies(spec, 1)}
    assert len(pairs) == len(VENDORS) * len(ENCODINGS)


def test_the_day_counts_what_ingest_finds(archive: tuple[Path, PhantomDay, PhantomDay]) -> None:
    folder, first, second = archive
    instances, refused = read_all(folder)
    repeated = first.broken["duplicate-instance"] + second.broken["duplicate-instance"]
    assert len({instance.sop_instance_uid for instance in instances}) == first.images + second.images
    assert len(instances) == first.images + second.images + repeated
    for reason in ("truncated", "no-pixels", "wrong-modality"):
        assert refused[reason] == first.broken[reason] + second.broken[reason]
    assert {reason: refused[reason] for reason in first.ignored} == first.ignored


def test_patients_come_back_on_the_second_day() -> None:
    first = {study.patient.patient_id for study in studies(SMALL, 1)}
    second = {study.patient.patient_id for study in studies(SMALL, 2)}
    assert len(first & second) == SMALL.returning
    assert len(second - first) == SMALL.new_patients


def test_no_study_is_made_twice() -> None:
    uids = [study.uid for day in (1, 2, 3) for study in studies(SMALL, day)]
    assert len(uids) == len(set(uids))


@pytest.mark.parametrize("syntax", ENCODINGS.values(), ids=list(ENCODINGS))
def test_every_encoding_occurs(archive: tuple[Path, PhantomDay, PhantomDay], syntax: str) -> None:
    assert syntax in {header.file_meta.TransferSyntaxUID for header in headers(archive[0])}


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.manufacturer)
def test_every_vendor_has_its_own_rescale(
    archive: tuple[Path, PhantomDay, PhantomDay], vendor: object
) -> None:
    vendors = {
        (h.Manufacturer, float(h.RescaleSlope), float(h.RescaleIntercept)) for h in headers(archive[0])
    }
    assert (vendor.manufacturer, vendor.slope, vendor.intercept) in vendors  # type: ignore[attr-defined]


def test_both_photometric_interpretations_occur(archive: tuple[Path, PhantomDay, PhantomDay]) -> None:
    photometrics = {header.PhotometricInterpretation for header in headers(archive[0])}
    assert photometrics == {"MONOCHROME1", "MONOCHROME2"}


def test_air_is_black_and_tissue_is_not_whatever_the_storage(
    archive: tuple[Path, PhantomDay, PhantomDay],
) -> None:
    for instance in read_all(archive[0])[0]:
        shown = prepare(instance.image, SHOWN)
        assert shown[:4, :4].mean() < 20, instance.attributes
        assert shown[41:45, 31:33].mean() > 150, instance.attributes


def test_a_lesion_is_brighter_than_the_lung_around_it(archive: tuple[Path, PhantomDay, PhantomDay]) -> None:
    masks = {path.stem: np.load(path) for path in (archive[0] / "masks").glob("*.npy")}
    lesions = [i for i in read_all(archive[0])[0] if i.sop_instance_uid in masks]
    assert lesions
    for instance in lesions:
        shown = prepare(instance.image, SHOWN)
        assert shown[masks[instance.sop_instance_uid]].mean() > 90


def test_every_image_labelled_lesion_has_a_mask(archive: tuple[Path, PhantomDay, PhantomDay]) -> None:
    folder, first, second = archive
    masks = {path.stem for path in (folder / "masks").glob("*.npy")}
    assert len(masks) == first.labels["lesion"] + second.labels["lesion"]


def test_the_label_table_has_the_troubles_that_the_day_lists(
    archive: tuple[Path, PhantomDay, PhantomDay],
) -> None:
    folder, first, _ = archive
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = {instance.sop_instance_uid for instance in read_all(folder)[0]}
    named = Counter(row["SOPInstanceUID"] for row in rows)
    assert len(set(named) - images) == first.labels_without_image
    assert len(images - set(named)) == first.images_without_label
    assert sum(count == 2 for count in named.values()) == first.images_in_conflict


def test_headers_carry_what_must_not_leave_ingest(archive: tuple[Path, PhantomDay, PhantomDay]) -> None:
    header = headers(archive[0])[0]
    assert str(header.PatientName).split("^")[0] in header.ImageComments
    assert header.PatientBirthDate in header.ImageComments
