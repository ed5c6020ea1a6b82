"""Nothing beyond ingest carries an original identifier: every byte that an ingest leaves is searched for them."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.errors import RadloopError
from services.flow_requests import IngestRequest
from services.settings import Settings
from tasks.report.ingest_summary import ingest_markdown
from tests.synthetic import write_dicom, write_labels

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Invalid value for VR UI")]

PLANTED = {
    "PatientName": "MUSTERMANN^ERIKA",
    "PatientID": "PID-48151623",
    "PatientBirthDate": "19640812",
    "OtherPatientIDs": "OTHER-77310",
    "AccessionNumber": "ACC-90210",
    "StudyID": "SID-5551",
    "InstitutionName": "WALDKLINIK",
    "ReferringPhysicianName": "DRHOUSE^G",
    "StudyDescription": "SCHAEDEL NATIV",
    "PatientComments": "LIVES IN ELMSTREET",
    "StudyInstanceUID": "1.2.826.0.1.11111.1",
    "SeriesInstanceUID": "1.2.826.0.1.22222.2",
}
UIDS = "1.2.826.0.1.33333."
FOLDER, FILE = "ward-rosengarten", "erika-m"
HIDDEN = (*PLANTED.values(), "MUSTERMANN", "DRHOUSE", UIDS, FOLDER, FILE, "LABELPATIENT-9")
"""What must be nowhere: values of the headers, names of folders and files, and a label's patient without image."""


@dataclass
class Left:
    """What an ingest left behind."""

    settings: Settings
    outcome: IngestOutcome
    artifacts: list[dict[str, Any]]
    log: str


def plant(folder: Path) -> tuple[Path, Path]:
    """Write images of planted patients with good and broken files among them, and their labels."""
    rows = [{"SOPInstanceUID": "LABELPATIENT-9", "label": "plain"}]
    for number in range(16):
        uid = f"{UIDS}{number}"
        changes = PLANTED | {"PatientID": f"{PLANTED['PatientID']}-{number}", "SOPInstanceUID": uid}
        write_dicom(folder / FOLDER / f"{FILE}-{number}", np.full((64, 64), number), **changes)
        rows.append({"SOPInstanceUID": uid, "label": ("plain", "contrast")[number % 2]})
    # One without label, one with two different ones, and a file for every way in which one can be bad.
    del rows[1]
    rows.append({"SOPInstanceUID": f"{UIDS}1", "label": "plain"})
    bad = {
        "modality": {"Modality": "MR"},
        "pixels": {"PixelData": None},
        "uid": {"SOPInstanceUID": f"{UIDS}x"},
        "patient": {"PatientID": ""},
        "bits": {"BitsStored": 99},
        "twice": {"SOPInstanceUID": f"{UIDS}0"},
    }
    for name, changes in bad.items():
        write_dicom(folder / FOLDER / f"{FILE}-{name}", np.full((64, 64), 99), **PLANTED | changes)
    whole = (folder / FOLDER / f"{FILE}-5").read_bytes()
    (folder / FOLDER / f"{FILE}-cut").write_bytes(whole[:-700])
    (folder / FOLDER / f"{FILE}.txt").write_text("MUSTERMANN^ERIKA")
    return folder, write_labels(folder.parent / "labels.csv", rows)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return plant(tmp_path_factory.mktemp("archive") / "dicom")


@pytest.fixture
def left(
    planted: tuple[Path, Path],
    settings: Settings,
    plain_flows: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Left:
    from flows.ingest import ingest

    caplog.set_level(logging.DEBUG)
    folder, labels = planted
    outcome = ingest(IngestRequest(source=str(folder), labels=str(labels)))
    printed = capfd.readouterr()
    return Left(settings, outcome, plain_flows, caplog.text + printed.out + printed.err)


def files(settings: Settings) -> Iterator[Path]:
    """Yield every file of the home but the private ones."""
    for path in settings.folder.rglob("*"):
        if path.is_file() and settings.private not in path.parents:
            yield path


def hidden_in(data: bytes) -> list[str]:
    lower = data.lower()
    return [value for value in HIDDEN if value.lower().encode() in lower]


def test_the_search_would_find_them(planted: tuple[Path, Path]) -> None:
    folder, labels = planted
    whole = b"".join(path.read_bytes() + str(path).encode() for path in folder.rglob("*") if path.is_file())
    assert set(hidden_in(whole + labels.read_bytes())) == set(HIDDEN)


def test_all_kinds_of_files_were_met(left: Left) -> None:
    outcome = left.outcome
    assert set(outcome.quarantined) == {
        "wrong-modality",
        "no-pixels",
        "missing-identifier",
        "undecodable",
        "truncated",
        "conflicting-instance",
    }
    assert outcome.ignored == {"not-dicom": 1}
    assert (outcome.labels_without_image, outcome.images_without_label) == (1, 1)
    assert outcome.images_in_conflict == 1


def test_no_file_of_the_store_has_one(left: Left) -> None:
    assert {
        path.name: hidden for path in files(left.settings) if (hidden := hidden_in(path.read_bytes()))
    } == {}


def test_no_table_has_one_once_it_is_decompressed(left: Left) -> None:
    from imaging.dataset.version.dataset_version import open_version

    version = open_version(left.settings.dataset_store, "radloop", left.outcome.digest)
    tables = [
        *version.table("examples").to_pylist(),
        *version.table("quarantine").to_pylist(),
        version.splits(),
        version.head,
    ]
    assert hidden_in(repr(tables).encode()) == []


def test_no_name_of_a_file_has_one(left: Left) -> None:
    assert hidden_in(" ".join(str(path) for path in files(left.settings)).encode()) == []


def test_the_outcome_has_none(left: Left) -> None:
    assert hidden_in(repr(left.outcome).encode()) == []
    assert hidden_in(ingest_markdown(left.outcome).encode()) == []


def test_no_artifact_has_one(left: Left) -> None:
    assert left.artifacts
    assert hidden_in(repr(left.artifacts).encode()) == []


def test_nothing_that_is_printed_or_logged_has_one(left: Left) -> None:
    assert "files listed" in left.log
    assert hidden_in(left.log.encode()) == []


def test_the_private_list_names_files_and_lines(left: Left) -> None:
    assert left.outcome.problems_file is not None
    text = Path(left.outcome.problems_file).read_text()
    assert f"{FOLDER}/{FILE}-cut" in text
    assert "label line,2,names-no-image" in text


def test_the_private_folder_is_for_its_owner_alone(left: Left) -> None:
    private = left.settings.private
    assert [path.stat().st_mode & 0o077 for path in (private, *private.iterdir())] == [0, 0, 0]


def test_an_error_names_none(planted: tuple[Path, Path], settings: Settings, plain_flows: list[Any]) -> None:
    from flows.ingest import ingest

    folder, labels = planted
    request = IngestRequest(source=str(folder), labels=str(labels), positive="tumour")
    with pytest.raises(RadloopError) as caught:
        ingest(request)
    assert hidden_in(f"{caught.value} {caught.value.__cause__!r}".encode()) == []
