"""A night of masks: from DICOM images and PNG masks to a champion, and back to DICOM SEG, by us and by a consumer."""

import csv
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import PIL.Image
import pydicom
import pytest

from models.portable.predictor import Predictor
from models.portable.series_masks import WriteMasks, WrittenMask
from services.flow_requests import NightlyRequest
from services.mlflow.registry import by_alias, model_file
from services.settings import Settings, activate
from tests.conftest import REPOSITORY
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


@pytest.fixture
def night(settings: Settings, plain_flows: list[Any], tmp_path: Path) -> NightlyRequest:
    """Return a night over made-up images, by a key with which each split has patients of all kinds."""
    os.environ["RADLOOP_KEY"] = KEY
    images, masks = write_archive(tmp_path)
    return NightlyRequest.model_validate(CONFIG | {"source": str(images), "masks": str(masks)})


def test_masks_end_in_a_champion_whose_masks_a_bare_consumer_draws_as_the_segmentations(
    night: NightlyRequest, tmp_path: Path
) -> None:
    from flows.nightly import nightly

    first = nightly(night)
    assert first.promotion.promoted
    assert first.evaluation.measures["dice"].value > 0.7
    assert first.ingested.mask_classes == ("disc",)
    assert "Worst" in Path(first.report).read_text()
    quiet = nightly(night)
    assert (quiet.ingested.digest, quiet.ingested.changed) == (first.ingested.digest, False)
    assert not quiet.trained.trained_now
    champion = by_alias(activate(), "discs", "champion")
    assert champion is not None
    check_segmentations(model_file(activate(), champion), Path(night.source), tmp_path)


def check_segmentations(model: Path, images: Path, folder: Path) -> None:
    """Compare what is written with what the recipe of the pages draws, and with what is written once more."""
    written = write_masks(model, images, folder / "seg", "BINARY")
    assert sorted(path.name for path in written) == sorted(f"1.2.5.{n}.dcm" for n in range(PATIENTS))
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
        made = pydicom.dcmread(folder / "seg" / f"1.2.5.{patient}.dcm")
        assert (made.PatientID, made.StudyInstanceUID) == (f"PATIENT-{patient:04d}", f"1.2.4.{patient}")
        different += int((frame_of(made, f"1.2.3.{patient}.{at}") != mask).sum())
    # Where two classes are equally probable, the last bit decides.
    assert different <= PATIENTS * SLICES * SIDE * SIDE / 10_000
    again = [write_masks(model, images, folder / name, "LABELMAP") for name in "ab"]
    assert [path.read_bytes() for path in again[0]] == [path.read_bytes() for path in again[1]]
    assert pydicom.dcmread(again[0][0]).SegmentationType == "LABELMAP"


def frame_of(made: pydicom.Dataset, uid: str) -> Any:
    """Return the frame of an image: highdicom orders them by their places, its own way."""
    groups = made.PerFrameFunctionalGroupsSequence
    uids = [one.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for one in groups]
    return made.pixel_array[uids.index(uid)]


def write_masks(model: Path, images: Path, target: Path, kind: Literal["BINARY", "LABELMAP"]) -> list[Path]:
    writer = WriteMasks(
        predictor=Predictor.load(model),
        model="discs",
        version="1",
        created=datetime(2026, 1, 2, 3, 4, 5),
        kind=kind,
    )
    outcomes = list(writer.write(images, target))
    assert not [one for one in outcomes if not isinstance(one, WrittenMask) or one.why]
    return [one.path for one in outcomes if isinstance(one, WrittenMask)]
