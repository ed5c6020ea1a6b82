"""Preview of a night: what would be read, trained and compared is counted, and nothing is written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.dataset.version.dataset_version import newest_version
from models.config import TrainConfig, training_key
from services import night_preview, training_plan
from services.flow_requests import IngestRequest, NightlyRequest, TrainRequest
from services.mlflow.registry_peek import Champion
from services.night_preview import FileCounts, preview_night
from services.settings import Settings, activate
from services.training_plan import will_train
from tests.synthetic import write_archive, write_dicom, write_labels

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.fixture
def night(tmp_path: Path) -> NightlyRequest:
    folder, labels = write_archive(tmp_path / "dicom")
    return NightlyRequest(source=str(folder), labels=str(labels), dataset="chest")


@pytest.fixture
def taken_in(
    night: NightlyRequest, tmp_path: Path, plain_flows: list[dict[str, Any]]
) -> Callable[[], Settings]:
    """Return a function that takes in what is there, without Prefect."""
    from flows.ingest import ingest
    from services.datasets import ingest_part

    os.environ["RADLOOP_HOME"] = str(tmp_path / "home")

    def take_in() -> Settings:
        ingest(IngestRequest.model_validate(ingest_part(night)))  # type: ignore[arg-type]
        return activate()

    return take_in


def test_before_the_first_night_all_is_new_and_no_key_is_made(
    night: NightlyRequest, settings: Settings, tmp_path: Path
) -> None:
    preview = preview_night(night, settings)
    assert preview.files == FileCounts(listed=24, new=24, changed=0, gone=0, begun=0)
    assert (preview.version, preview.trains, preview.champion) == (None, True, None)
    assert not settings.folder.exists()


def test_files_are_counted_by_what_became_of_them(
    night: NightlyRequest, taken_in: Callable[[], Settings]
) -> None:
    settings = taken_in()
    assert preview_night(night, settings).files == FileCounts(listed=24, new=0, changed=0, gone=0, begun=0)
    source = Path(night.source)
    write_dicom(source / "IM0", np.ones((64, 64)), PatientID="P0", SOPInstanceUID="1.2.10")
    for number in (1, 2):
        (source / f"IM{number}").unlink()
    for number in range(3):
        write_dicom(source / f"new{number}", np.ones((64, 64)), PatientID="N", SOPInstanceUID=f"1.9.{number}")
    before = contents(settings.folder)
    preview = preview_night(night, settings)
    assert preview.files == FileCounts(listed=25, new=3, changed=1, gone=2, begun=0)
    assert (preview.trains, preview.why) == (True, "files are new, changed or gone")
    assert contents(settings.folder) == before


def test_labels_that_changed_are_noticed(night: NightlyRequest, taken_in: Callable[[], Settings]) -> None:
    settings = taken_in()
    rows = [{"SOPInstanceUID": f"1.2.{n + 10}", "label": ("contrast", "plain")[n % 2]} for n in range(24)]
    write_labels(Path(night.labels or ""), rows)
    assert preview_night(night, settings).why == "labels have changed"


def test_a_training_that_was_done_is_not_done_again(
    night: NightlyRequest, taken_in: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = taken_in()
    version = newest_version(settings.dataset_store, "chest")
    assert version is not None
    keys = {training_key(version, night.training): [2, 3]}
    monkeypatch.setattr(
        training_plan, "peek_versions", lambda _, name, **tags: keys.get(tags["training.key"], [])
    )
    monkeypatch.setattr(night_preview, "peek_champions", lambda _: [Champion(name="chest", version=3)])
    preview = preview_night(night, settings)
    assert (preview.trains, preview.why) == (
        False,
        "version 3 was trained on this data with this configuration",
    )
    assert preview.compared == "version 3 is the champion already: nothing to compare"
    assert preview_night(night.model_copy(update={"again": True}), settings).trains
    trained = TrainRequest(dataset="chest", training=night.training)
    assert not will_train(trained, settings)
    assert will_train(trained.model_copy(update={"again": True}), settings)
    assert will_train(TrainRequest(dataset="chest", training=TrainConfig(epochs=3)), settings)
    other = preview_night(night.model_copy(update={"training": TrainConfig(epochs=3)}), settings)
    assert (other.trains, other.compared) == (True, "champion version 3")


def test_nothing_is_trained_where_there_is_no_dataset(settings: Settings) -> None:
    assert not will_train(TrainRequest(dataset="chest", again=True), settings)


def test_a_source_of_an_npz_file_is_previewed(settings: Settings, tmp_path: Path) -> None:
    arrays = {f"{part}_images": np.zeros((2, 8, 8), np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.zeros((2, 1), np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "rows.npz", **arrays, **labels)
    request = NightlyRequest(source=str(tmp_path / "rows.npz"))
    assert preview_night(request, settings).files.new == 3


def test_volumes_are_previewed_by_series(night: NightlyRequest, settings: Settings) -> None:
    request = NightlyRequest.model_validate(night.model_dump() | {"preprocess": {"kind": "volume"}})
    assert preview_night(request, settings).files.listed > 0
