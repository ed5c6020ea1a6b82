"""Bad slice among the files of an ingest: its cost under each policy, and for how long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.dataset.version.dataset_version import newest_version
from services.flow_requests import IngestRequest
from services.settings import Settings
from tests.synthetic import write_dicom, write_labels

pytestmark = pytest.mark.slow

STUDIES = 40
"""So many that no split loses its only patient with a study, whatever key the home has drawn."""
SLICES = 3


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Write studies of some slices each, no two alike, of two classes; a slice of study 0 is cut."""
    rows = []
    for study in range(STUDIES):
        for number in range(SLICES):
            write_slice(tmp_path, study, number)
        rows.append({"PatientID": f"P{study}", "label": ("plain", "contrast")[study % 2]})
    write_labels(tmp_path / "labels.csv", rows)
    cut(tmp_path)
    return tmp_path


def write_slice(folder: Path, study: int, number: int, level: int | None = None, **changes: Any) -> Path:
    detail: dict[str, Any] = {
        "PatientID": f"P{study}",
        "StudyInstanceUID": f"1.2.{study}",
        "SeriesInstanceUID": f"1.2.{study}.1",
        "SOPInstanceUID": f"1.2.{study}.1.{number}",
    }
    pixels = np.full((64, 64), 10 * study + number if level is None else level)
    return write_dicom(folder / "dicom" / f"{study}-{number}", pixels, **detail | changes)


def cut(folder: Path) -> None:
    path = folder / "dicom" / "0-1"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture
def night(
    archive: Path, settings: Settings, plain_flows: list[dict[str, Any]]
) -> Callable[..., IngestOutcome]:
    """Return a function that takes in what is new."""
    from flows.ingest import ingest

    def night(**changes: Any) -> IngestOutcome:
        values = {"source": str(archive / "dicom"), "labels": str(archive / "labels.csv")}
        return ingest(IngestRequest.model_validate(values | changes))

    return night


def test_by_default_a_bad_slice_costs_itself(night: Callable[..., IngestOutcome]) -> None:
    outcome = night()
    assert (outcome.examples, outcome.quarantined) == (STUDIES * SLICES - 1, {"truncated": 1})


def test_drop_study_costs_the_study_and_no_other(night: Callable[..., IngestOutcome]) -> None:
    outcome = night(bad_slice="drop-study")
    assert (outcome.examples, outcome.patients) == ((STUDIES - 1) * SLICES, STUDIES - 1)
    assert outcome.quarantined == {"truncated": 1, "bad-study": SLICES - 1}


def test_a_slice_of_another_modality_costs_nothing(
    night: Callable[..., IngestOutcome], archive: Path
) -> None:
    write_slice(archive, 0, 1)
    write_slice(archive, 1, 9, Modality="SR")
    outcome = night(bad_slice="drop-study")
    assert (outcome.examples, outcome.quarantined) == (STUDIES * SLICES, {"wrong-modality": 1})


def test_a_night_without_news_changes_nothing(night: Callable[..., IngestOutcome]) -> None:
    first, second = night(bad_slice="drop-study"), night(bad_slice="drop-study")
    assert (second.digest, second.changed) == (first.digest, False)
    assert second.files_read == 0


def test_a_mended_slice_brings_its_study_back(night: Callable[..., IngestOutcome], archive: Path) -> None:
    night(bad_slice="drop-study")
    write_slice(archive, 0, 1)
    outcome = night(bad_slice="drop-study")
    assert (outcome.examples, outcome.quarantined) == (STUDIES * SLICES, {})


def test_a_slice_that_goes_bad_takes_the_study_that_stood(
    night: Callable[..., IngestOutcome], archive: Path
) -> None:
    write_slice(archive, 0, 1)
    assert night(bad_slice="drop-study").examples == STUDIES * SLICES
    cut(archive)
    assert night(bad_slice="drop-study").examples == (STUDIES - 1) * SLICES


def test_a_dropped_study_takes_no_other_along(night: Callable[..., IngestOutcome], archive: Path) -> None:
    # The pixels of a slice that is lost, in a study that is whole: they must not be refused as repeated.
    write_slice(archive, 1, 2, level=2)
    outcome = night(bad_slice="drop-study")
    assert outcome.quarantined == {"truncated": 1, "bad-study": SLICES - 1}
    assert outcome.examples == (STUDIES - 1) * SLICES


def test_what_a_lost_study_repeated_comes_back(night: Callable[..., IngestOutcome], archive: Path) -> None:
    write_slice(archive, 0, 1)
    write_slice(archive, 1, 2, level=2)
    assert night(bad_slice="drop-study").quarantined == {"duplicate-pixels": 1}
    write_slice(archive, 0, SLICES, PixelData=bytes(9))
    outcomes = [night(bad_slice="drop-study") for _ in range(2)]
    assert outcomes[-1].quarantined == {"truncated": 1, "bad-study": SLICES}
    assert outcomes[-1].examples == (STUDIES - 1) * SLICES


def test_the_version_has_no_row_of_a_dropped_study(
    night: Callable[..., IngestOutcome], settings: Settings
) -> None:
    night(bad_slice="drop-study")
    version = newest_version(settings.dataset_store, "radloop")
    assert version is not None
    lost = set(version.table("quarantine")["study_key"].to_pylist())
    assert len(lost) == 1
    assert not lost & set(version.table("examples")["study_key"].to_pylist())
