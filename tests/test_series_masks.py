"""Masks of folders of images: a file for each series, on the grid of its images, in the format that it can have."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
from numpy.typing import NDArray

from imaging.errors import DataFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from models.objectives.classification import Classification
from models.objectives.segmentation import Segmentation
from models.portable.predictor import Predictor
from models.portable.series_masks import WriteMasks, WrittenMask
from tests.dicom_objects import file_bytes
from tests.mask_objects import FRAME_OF_REFERENCE, position, source

pytestmark = pytest.mark.slow

SIDE = 16
BRIGHT = np.zeros((SIDE, SIDE), np.uint8)
BRIGHT[4:9, 6:14] = 255


class Bright:
    """Model that calls what is bright, in the place of a network."""

    def __init__(self, **spec: Any) -> None:
        grey: dict[str, Any] = {"modality": "OT", "window": "128/256", "size_px": SIDE}
        self.spec = PreprocessSpec.model_validate(grey | spec)
        self.objective: Any = Segmentation(classes=("bright",))

    def predict_levels(self, levels: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        bright = (levels > 127).astype(np.float32)
        return {"probabilities": np.stack([1 - bright, bright], axis=1)}


def written(folder: Path, target: Path, model: Bright) -> list[WrittenMask]:
    writer = WriteMasks(
        predictor=cast(Predictor, model), model="m", version="1", created=datetime(2026, 1, 2, 3, 4, 5)
    )
    outcomes = list(writer.write(folder, target))
    assert not [one for one in outcomes if isinstance(one, DataFault)], outcomes
    return [one for one in outcomes if isinstance(one, WrittenMask)]


def write_series(folder: Path, slices: int, **changes: Any) -> None:
    """Write an oblique series whose bright part grows with the slice; the names are in the other order."""
    for number in range(slices):
        image = source(number, SIDE, SIDE, **{"Modality": "OT", "PixelSpacing": [0.8, 0.8], **changes})
        pixels = np.where(np.arange(SIDE)[:, None] < 4 + number, 255, 0) + np.zeros((SIDE, SIDE))
        image.PixelData = pixels.astype(np.uint16).tobytes()
        (folder / f"{slices - number}").write_bytes(file_bytes(image))


@pytest.mark.parametrize("kind", ["slice", "volume"])
def test_a_series_becomes_a_segmentation_slice_by_slice(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    # Dates that are none are common in archives.
    write_series(tmp_path / "in", 4, PatientBirthDate="00000000", StudyDate="20120000")
    (one,) = written(tmp_path / "in", tmp_path / "out", Bright(kind=kind, slices=4))
    made = pydicom.dcmread(one.path)
    assert (one.why, made.FrameOfReferenceUID, made.PatientID) == ("", FRAME_OF_REFERENCE, "P-77")
    for frame, plane in zip(made.PerFrameFunctionalGroupsSequence, made.pixel_array, strict=True):
        at = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        (number,) = [n for n in range(4) if np.abs(position(n) - at).max() < 1e-3]
        assert plane.any(axis=1).sum() == 4 + number
        assert plane.all(axis=1).sum() == 4 + number


def test_each_frame_of_reference_has_a_segmentation_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_series(tmp_path / "in", 2)
    path = tmp_path / "in" / "1"
    other = pydicom.dcmread(path)
    other.FrameOfReferenceUID = "1.2.10"
    other.save_as(path)
    made = written(tmp_path / "in", tmp_path / "out", Bright())
    frames = {pydicom.dcmread(one.path).FrameOfReferenceUID for one in made}
    assert frames == {FRAME_OF_REFERENCE, "1.2.10"}


def test_images_without_a_frame_of_reference_become_pictures(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_series(tmp_path / "in", 2, FrameOfReferenceUID=None)
    made = written(tmp_path / "in", tmp_path / "out", Bright())
    assert sorted(one.path.name for one in made) == ["1.png", "2.png"]
    assert all("no FrameOfReferenceUID" in one.why for one in made)
    assert np.asarray(PIL.Image.open(tmp_path / "out" / "2.png")).sum() == 4 * SIDE


def test_a_picture_becomes_a_picture_of_its_size(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    PIL.Image.fromarray(np.kron(BRIGHT, np.ones((2, 2), np.uint8))).save(tmp_path / "in" / "a" / "one.png")
    (one,) = written(tmp_path / "in", tmp_path / "out", Bright(window="file"))
    assert (one.path.name, one.why) == ("a_one.png", "")
    assert np.array_equal(np.asarray(PIL.Image.open(one.path)), np.kron(BRIGHT > 0, np.ones((2, 2), bool)))


def test_a_nifti_file_becomes_one_with_its_axes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    volume = np.stack([np.roll(BRIGHT, n, axis=0) for n in range(4)]).T.astype(np.int16)
    image = nibabel.Nifti1Image(volume, np.diag([-0.8, 0.8, 3, 1]))
    nibabel.save(image, tmp_path / "in" / "case.nii.gz")
    (one,) = written(tmp_path / "in", tmp_path / "out", Bright(kind="volume", slices=4, modality="CT"))
    made = nibabel.load(one.path)
    assert one.path.name == "case.nii.gz"
    # NIfTI keeps single precision.
    assert np.allclose(made.affine, image.affine, atol=1e-6)
    assert np.array_equal(np.asarray(made.dataobj), volume > 0)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(b"no image")
    writer = WriteMasks(
        predictor=cast(Predictor, Bright()), model="m", version="1", created=datetime(2026, 1, 2)
    )
    (one,) = writer.write(tmp_path / "in", tmp_path / "out")
    assert isinstance(one, DataFault)
    assert one.reason == "not-dicom"


def test_a_model_of_another_kind_draws_nothing(tmp_path: Path) -> None:
    model = Bright()
    model.objective = Classification(classes=("a", "b"))
    with pytest.raises(UserFault, match="classification, which gives no masks"):
        written(tmp_path, tmp_path / "out", model)
