"""A night of masks: from DICOM images and PNG masks to a champion, and back to DICOM SEG, by us and by a consumer."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image
import pydicom
import pytest

from models.portable.predictor import Predictor
from models.portable.series_masks import WriteMasks, WrittenMask
from services.flow_requests import NightlyRequest
from services.mlflow.registry import by_alias, model_file
from services.settings import activate
from tasks.reporting import NightlyReport
from tests.conftest import REPOSITORY, Running, fresh_environment
from tests.dicom_objects import dataset, file_bytes
from tests.mask_examples import discs

pytestmark = pytest.mark.slow

PATIENTS, SLICES, SIDE = 16, 2, 20
CONFIG: dict[str, Any] = {
    "dataset": "discs",
    "mask_classes": ["disc"],
    "preprocess": {"modality": "MR", "window": "512/1024", "size_px": 16},
    # As tests.test_segmentation_training has it: enough to draw discs in a few epochs.
    "training": {
        "epochs": 5,
        "batch_size": 4,
        "workers": 1,
        "ema_decay": 0,
        "optimizer": {"learning_rate": 0.005},
    },
    "gate": {"floor": 0.5, "margin": 0.5, "draws": 200, "min_patients": 1},
}
KEY = "3c" * 32
DOCUMENTED = "\n".join(
    block
    for block in re.findall(
        r"```python\n(.*?)```", (REPOSITORY / "docs" / "consumers.md").read_text(), re.DOTALL
    )
    if "def model_input" in block or "def source_mask" in block
)


def write_archive(folder: Path) -> tuple[Path, Path]:
    """Write series of two slices with a disc in each, and the table of their masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    examples = discs(PATIENTS * SLICES, (SIDE, SIDE), seed=3)
    lines = [("SOPInstanceUID", "mask")]
    for number, (image, mask) in enumerate(zip(examples.images, examples.drawn, strict=True)):
        patient, at = divmod(number, SLICES)
        made = dataset(
            image.astype(np.uint16) * 4,
            SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
            SOPInstanceUID=f"1.2.3.{patient}.{at}",
            StudyInstanceUID=f"1.2.4.{patient}",
            SeriesInstanceUID=f"1.2.5.{patient}",
            FrameOfReferenceUID=f"1.2.6.{patient}",
            PatientID=f"PATIENT-{patient:04d}",
            Modality="MR",
            PixelSpacing=[1.5, 1.5],
            SliceThickness=4,
            ImagePositionPatient=[-15, -15, 4 * at],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
        (folder / "images" / f"{number}.dcm").write_bytes(file_bytes(made))
        PIL.Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
        lines.append((f"1.2.3.{patient}.{at}", f"masks/{number}.png"))
    with (folder / "masks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "images", folder / "masks.csv"


@pytest.fixture(scope="module")
def passed(stack: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ...]]:
    """Let a night pass, and a quiet one; yield both, the champion's file and the images."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.nightly import nightly

    images, masks = write_archive(tmp_path_factory.mktemp("discs"))
    request = NightlyRequest.model_validate(CONFIG | {"source": str(images), "masks": str(masks)})
    prefect = f"{stack.record.addresses['prefect']}/api"
    with fresh_environment(), temporary_settings({PREFECT_API_URL: prefect}):
        os.environ["RADLOOP_HOME"] = str(tmp_path_factory.mktemp("home"))
        os.environ["RADLOOP_KEY"] = KEY
        first, quiet = nightly(request), nightly(request)
        champion = by_alias(activate(), "discs", "champion")
        assert champion is not None
        yield first, quiet, model_file(activate(), champion), images


def test_masks_end_in_a_champion_and_a_report(passed: tuple[NightlyReport, ...]) -> None:
    night = passed[0]
    assert night.promotion.promoted
    assert night.evaluation.measures["dice"].value > 0.7
    assert night.ingested.mask_classes == ("disc",)
    assert "Worst" in Path(night.report).read_text()


def test_a_quiet_night_reads_no_mask_and_trains_nothing(passed: tuple[NightlyReport, ...]) -> None:
    first, quiet = passed[:2]
    assert (quiet.ingested.digest, quiet.ingested.changed) == (first.ingested.digest, False)
    assert not quiet.trained.trained_now


def test_a_bare_consumer_draws_the_masks_that_are_written_as_seg(
    passed: tuple[Any, ...], tmp_path: Path
) -> None:
    _, _, model, images = passed
    writer = WriteMasks(
        predictor=Predictor.load(model), model="discs", version="1", created=datetime(2026, 1, 2, 3, 4, 5)
    )
    written = [one for one in writer.write(images, tmp_path) if isinstance(one, WrittenMask)]
    assert sorted(one.path.name for one in written) == sorted(f"1.2.5.{n}.dcm" for n in range(PATIENTS))
    theirs: dict[str, Any] = {}
    exec(DOCUMENTED, theirs)
    session = onnxruntime.InferenceSession(str(model))
    spec = json.loads(session.get_modelmeta().custom_metadata_map["spec"])
    different = 0
    for number in range(PATIENTS * SLICES):
        patient, at = divmod(number, SLICES)
        given = theirs["model_input"](images / f"{number}.dcm", spec)
        probabilities = session.run(["probabilities"], {"image": given})[0][0]
        mask = theirs["source_mask"](probabilities, (SIDE, SIDE), (1.5, 1.5))
        made = pydicom.dcmread(tmp_path / f"1.2.5.{patient}.dcm")
        assert (made.PatientID, made.StudyInstanceUID) == (f"PATIENT-{patient:04d}", f"1.2.4.{patient}")
        different += int((made.pixel_array[at] != mask).sum())
    # Where two classes are equally probable, the last bit decides.
    assert different <= PATIENTS * SLICES * SIDE * SIDE / 10_000


def test_the_same_masks_are_written_as_the_same_bytes(passed: tuple[Any, ...], tmp_path: Path) -> None:
    _, _, model, images = passed
    contents = []
    for name in ("a", "b"):
        writer = WriteMasks(
            predictor=Predictor.load(model),
            model="discs",
            version="1",
            created=datetime(2026, 1, 2, 3, 4, 5),
            kind="LABELMAP",
        )
        list(writer.write(images, tmp_path / name))
        contents.append((tmp_path / name / "1.2.5.0.dcm").read_bytes())
    assert contents[0] == contents[1]
    read = pydicom.dcmread(io.BytesIO(contents[0]))
    assert read.SegmentationType == "LABELMAP"
