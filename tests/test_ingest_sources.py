"""Every source and every format goes through the whole ingest: the real flow, the real sandbox, real servers."""

import csv
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.dataset.ingest.listing import list_files
from imaging.dataset.version.dataset_version import newest_version
from imaging.errors import UserFault
from imaging.sources.folder_source import FolderSource
from services.flow_requests import IngestRequest, TrainRequest
from services.settings import Settings
from tasks.training import known_candidate
from tests.servers import dicomweb_server, s3_server
from tests.synthetic import write_archive, write_dicom, write_labels
from tests.whole_slides import slide_object, tissue

pytestmark = pytest.mark.slow
PATIENTS = 24
Ingest = Callable[..., IngestOutcome]


@pytest.fixture
def ingest(settings: Settings, plain_flows: list[Any]) -> Ingest:
    """Return the ingest flow without Prefect's decorators."""

    def run(source: str | Path, labels: Path, **changes: Any) -> IngestOutcome:
        from flows.ingest import ingest

        asked = {"source": str(source), "labels": str(labels), "dataset": "d", **changes}
        return ingest(IngestRequest.model_validate(asked))

    return run


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, Path]:
    return write_archive(tmp_path / "dicom", PATIENTS)


def test_labels_by_image_and_patient_are_reported(
    ingest: Ingest, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [
        {"PatientID": f"P{n}", "SOPInstanceUID": f"1.2.{n + 10}", "label": ("No Finding", "Effusion")[n % 2]}
        for n in range(PATIENTS)
    ]
    rows[5]["PatientID"], rows[6]["label"], rows[7]["label"] = "P0", "unknown", "NA"
    table = write_labels(tmp_path / "both.csv", rows)
    outcome = ingest(archive[0], table, missing=["Unknown", "NA"])
    assert outcome.classes == ("No Finding", "Effusion")
    assert (outcome.labels_of_others, outcome.images_without_label, outcome.labels_without_image) == (1, 3, 0)
    assert outcome.labels_missing == {"unknown": 1, "NA": 1}
    assert "label line,7,of-another" in Path(outcome.problems_file or "").read_text()


def test_a_zip_is_taken_in(ingest: Ingest, archive: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(archive[0].iterdir()):
            packed.write(path, f"ward/{path.name}")
        packed.writestr("../escape", b"x")
    outcome = ingest(tmp_path / "all.zip", archive[1])
    assert (outcome.examples, outcome.quarantined) == (PATIENTS, {"archive-escape": 1})


def test_slides_become_tiles_with_the_labels_of_their_series_and_are_read_once(
    ingest: Ingest, settings: Settings, tmp_path: Path
) -> None:
    rows = []
    for number in range(PATIENTS):
        level = tissue(128, nuclei=40 * (number % 2), seed=number)
        ids = {"PatientID": f"P{number}", "StudyInstanceUID": f"1.2.{number + 1}"}
        ids["SeriesInstanceUID"] = f"{ids['StudyInstanceUID']}.1"
        folder = tmp_path / "slides" / f"P{number}"
        folder.mkdir(parents=True)
        for mpp, pixels in ((0.5, level), (1.0, level[::2, ::2])):
            (folder / f"{mpp}.dcm").write_bytes(slide_object(pixels, mpp, **ids))
        label = slide_object(level, None, ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"], **ids)
        (folder / "label.dcm").write_bytes(label)
        rows.append(
            {"SeriesInstanceUID": ids["SeriesInstanceUID"], "label": ("normal", "tumour")[number % 2]}
        )
    asked = {"preprocess": {"modality": "SM", "slide_mpp": 0.5, "size_px": 16}}
    table = write_labels(tmp_path / "labels.csv", rows)
    outcome = ingest(tmp_path / "slides", table, **asked)
    assert (outcome.examples, outcome.patients, outcome.quarantined) == (16 * PATIENTS, PATIENTS, {})
    assert outcome.ignored == {"slide-label": PATIENTS, "slide-background": PATIENTS}
    again = ingest(tmp_path / "slides", table, **asked)
    assert (again.files_read, again.digest) == (0, outcome.digest)
    version = newest_version(settings.dataset_store, "d")
    assert version is not None
    examples = version.table("examples", ["series_key", "patient_key", "label", "split"])
    of_slides = examples.group_by(["series_key", "patient_key", "label", "split"]).aggregate(
        [([], "count_all")]
    )
    assert of_slides["count_all"].to_pylist() == [16] * PATIENTS


def test_a_compressed_tar_is_taken_in(ingest: Ingest, archive: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as packed:
        packed.add(archive[0], "ward")
    assert ingest(tmp_path / "all.tar.gz", archive[1]).examples == PATIENTS


def test_an_s3_prefix_is_taken_in(
    ingest: Ingest, archive: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    with s3_server(tmp_path / "s3") as server:
        for name, value in server.aws.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="archive")
        for path in archive[0].iterdir():
            client.upload_file(str(path), "archive", f"night/{path.name}")
        assert ingest("s3://archive/night/", archive[1]).examples == PATIENTS


def test_a_dicomweb_server_is_taken_in(
    ingest: Ingest, archive: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dicomweb_server(tmp_path / "orthanc") as server:
        for path in archive[0].iterdir():
            assert server.upload(path.read_bytes()) == 200
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine 127.0.0.1 login {server.user} password {server.word}\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        address = server.address.replace("http://", "dicomweb+http://") + "/dicom-web"
        assert ingest(address, archive[1]).examples == PATIENTS


def test_pictures_are_taken_in_with_their_patients(ingest: Ingest, tmp_path: Path) -> None:
    rows = []
    for number in range(PATIENTS):
        name = f"ward/{number:03}.{('png', 'jpg', 'tif')[number % 3]}"
        pixels = np.random.default_rng(number).integers(0, 255, (40, 30), np.uint8)
        (tmp_path / "pictures/ward").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
        rows.append({"file": name, "PatientID": f"P{number // 2}", "label": ("a", "b")[number % 2]})
    outcome = ingest(
        tmp_path / "pictures",
        write_labels(tmp_path / "labels.csv", rows),
        preprocess={"modality": "XC", "window": "file"},
    )
    assert (outcome.examples, outcome.patients, outcome.images_without_label) == (PATIENTS, PATIENTS // 2, 0)


VOLUME: Mapping[str, Any] = {"kind": "volume", "slices": 8, "size_px": 16}


def write_series(folder: Path, number: int, count: int = 12, **changes: Any) -> None:
    """Write a series of slices in a shuffled order, brighter from slice to slice."""
    order = np.random.default_rng(number).permutation(count)
    for file, place in enumerate(order):
        elements: dict[str, Any] = {
            "PatientID": f"P{number}",
            "StudyInstanceUID": f"1.2.{number + 1}",
            "SeriesInstanceUID": f"1.3.{number + 1}",
            "SOPInstanceUID": f"1.4.{number + 1}.{file + 1}",
            "ImagePositionPatient": [0, 0, 2.5 * int(place)],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.7, 0.7],
            "InstanceNumber": file + 1,
        }
        level = np.full((32, 32), 20 * place - 150 + 40 * (number % 2) + number)
        write_dicom(folder / f"{number}-{file}", level, **(elements | changes))


@pytest.fixture
def series(tmp_path: Path) -> tuple[Path, Path]:
    rows = []
    for number in range(PATIENTS):
        write_series(tmp_path / "ct", number)
        rows.append({"SeriesInstanceUID": f"1.3.{number + 1}", "label": ("a", "b")[number % 2]})
    return tmp_path / "ct", write_labels(tmp_path / "labels.csv", rows)


def test_a_series_is_one_volume_in_the_order_of_its_places(
    ingest: Ingest, series: tuple[Path, Path], settings: Settings
) -> None:
    outcome = ingest(*series, preprocess=VOLUME)
    version = newest_version(settings.dataset_store, "d")
    assert version is not None
    rows = version.examples("train")
    assert (outcome.examples, rows.gather(np.zeros(1, np.int64)).shape) == (PATIENTS, (1, 8, 16, 16))
    for volume in rows.gather(np.arange(len(rows))):
        assert (np.diff(volume.mean(axis=(1, 2))) > 0).all()


def test_a_bad_slice_costs_its_volume(ingest: Ingest, series: tuple[Path, Path]) -> None:
    path = series[0] / "3-5"
    path.write_bytes(path.read_bytes()[:-100])
    outcome = ingest(*series, preprocess=VOLUME)
    assert (outcome.examples, outcome.quarantined) == (PATIENTS - 1, {"bad-slice": 1})


def test_a_bad_slice_costs_only_itself_under_drop_slice(ingest: Ingest, series: tuple[Path, Path]) -> None:
    path = series[0] / "3-5"
    path.write_bytes(path.read_bytes()[:-100])
    assert ingest(*series, preprocess=VOLUME, bad_slice="drop-slice").examples == PATIENTS


def test_an_unchanged_archive_of_volumes_is_not_read_again(ingest: Ingest, series: tuple[Path, Path]) -> None:
    first, second = ingest(*series, preprocess=VOLUME), ingest(*series, preprocess=VOLUME)
    assert (first.digest, second.files_read, second.changed) == (second.digest, 0, False)


def test_one_new_slice_makes_its_volume_new(ingest: Ingest, series: tuple[Path, Path]) -> None:
    ingest(*series, preprocess=VOLUME)
    write_dicom(
        series[0] / "late",
        np.full((32, 32), 500),
        PatientID="P4",
        StudyInstanceUID="1.2.5",
        SeriesInstanceUID="1.3.5",
        SOPInstanceUID="1.4.5.99",
        ImagePositionPatient=[0, 0, 30],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[0.7, 0.7],
    )
    outcome = ingest(*series, preprocess=VOLUME)
    assert (outcome.files_read, outcome.examples, outcome.changed) == (1, PATIENTS, True)


def test_nifti_volumes_are_taken_in(ingest: Ingest, tmp_path: Path, settings: Settings) -> None:
    rows = []
    (tmp_path / "nifti").mkdir()
    for number in range(PATIENTS):
        name = f"{number}.nii{('', '.gz')[number % 2]}"
        voxels = np.random.default_rng(number).integers(-200, 300, (20, 24, 10)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([0.8, 0.8, 3.0, 1.0])), tmp_path / "nifti" / name)
        rows.append({"file": name, "PatientID": f"P{number}", "label": ("a", "b")[number % 2]})
    table = write_labels(tmp_path / "labels.csv", rows)
    outcome = ingest(tmp_path / "nifti", table, preprocess={**VOLUME, "spacing_mm": [3, 1, 1]})
    version = newest_version(settings.dataset_store, "d")
    assert version is not None
    assert (outcome.examples, version.examples("train").gather(np.zeros(1, np.int64)).shape[1:]) == (
        24,
        (8, 16, 16),
    )


def test_the_names_of_bad_files_are_kept_for_their_owner(ingest: Ingest, tmp_path: Path) -> None:
    folder, labels = write_archive(tmp_path / "dicom", PATIENTS)
    shutil.copy(folder / "IM0", folder / "Jane-Doe")
    (folder / "Jane-Doe").write_bytes((folder / "IM0").read_bytes()[:3000])
    outcome = ingest(folder, labels)
    assert outcome.quarantined == {"truncated": 1}
    assert outcome.problems_file is not None
    with Path(outcome.problems_file).open() as file:
        assert ["file", "Jane-Doe", "truncated"] in [row[:3] for row in csv.reader(file)]


def test_losing_the_only_validation_patient_of_a_class_does_not_stop_an_ingest(
    ingest: Ingest, archive: tuple[Path, Path], settings: Settings
) -> None:
    images, labels = archive
    ingest(images, labels)
    version = newest_version(settings.dataset_store, "d")
    assert version is not None
    rows = version.table("examples", ["source_key", "split", "label"]).to_pylist()
    last = {row["source_key"] for row in rows if (row["split"], row["label"]) == ("val", "contrast")}
    keys = settings.pseudonyms()
    listing = list_files(FolderSource(images).scan(), keys)
    for name in listing.named(pa.array(last)).values():
        (images / name).unlink()
    outcome = ingest(images, labels)
    assert (outcome.changed, outcome.files_removed) == (True, len(last))
    assert "and none in 'val'" in outcome.untrainable
    with pytest.raises(UserFault, match="none in 'val'"):
        known_candidate.fn(TrainRequest(dataset="d"), settings)
