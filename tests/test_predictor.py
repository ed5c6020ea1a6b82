"""A predictor runs what consumers get, without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from imaging.errors import UserFault
from imaging.image.image import Image
from imaging.image.window import Window
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from models.networks.catalog import build
from models.objectives.classification import Classification
from models.portable import predictor as predict
from models.portable.export import Portable, export_onnx
from models.portable.predictor import Predictor
from models.training.batches import ArrayExamples

SPEC = PreprocessSpec(window=Window(center=40, width=400), size_px=16)
OBJECTIVE = Classification(classes=("plain", "contrast"), threshold=0.25)


@pytest.fixture(scope="module")
def portable() -> tuple[Portable, bytes]:
    torch.manual_seed(0)
    network = build("small_cnn", 2).eval()
    # Fresh weights hardly look at their input: a hundred times as much makes every level count.
    torch.nn.init.normal_(network[-1].weight, std=3.0)  # type: ignore[index, arg-type]
    model = export_onnx(network, SPEC, OBJECTIVE).SerializeToString()
    return Portable(network, SPEC, OBJECTIVE).eval(), model


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 16, 16), dtype=np.uint8)


def test_the_model_names_its_objective_and_spec(portable: tuple[Portable, bytes]) -> None:
    predictor = Predictor.load(portable[1])
    assert (predictor.objective, predictor.spec) == (OBJECTIVE, SPEC)


def test_a_file_and_its_bytes_are_the_same_model(
    portable: tuple[Portable, bytes], levels: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(portable[1])
    from_file, from_bytes = Predictor.load(tmp_path / "model.onnx"), Predictor.load(portable[1])
    assert np.array_equal(
        from_file.predict_levels(levels)["probabilities"], from_bytes.predict_levels(levels)["probabilities"]
    )


def test_stored_levels_give_what_the_network_gives(
    portable: tuple[Portable, bytes], levels: np.ndarray
) -> None:
    reference, model = portable
    with torch.no_grad():
        wanted = reference.network(torch.from_numpy(levels)[:, None] / 127.5 - 1).softmax(1).numpy()
    assert np.abs(Predictor.load(model).predict_levels(levels)["probabilities"] - wanted).max() < 1e-4
    assert wanted[:, 1].std() > 0.01


def test_units_of_any_size_give_what_prepared_levels_give(portable: tuple[Portable, bytes]) -> None:
    draw, predictor = np.random.default_rng(1), Predictor.load(portable[1])
    shapes = [(16, 16), (50, 31), (9, 12)]
    images = [np.rint(draw.uniform(-200, 300, shape)).astype(np.float32) for shape in shapes]
    prepared = np.stack([prepare(Image(stored=image), SPEC) for image in images])
    alone = np.concatenate([outputs["probabilities"] for outputs in predictor.predict_units(images)])
    assert np.abs(alone - predictor.predict_levels(prepared)["probabilities"]).max() < 1e-4


def test_small_batches_give_what_one_batch_gives(
    portable: tuple[Portable, bytes], levels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(portable[1])
    at_once = predictor.predict_levels(levels)["probabilities"]
    monkeypatch.setattr(predict, "BATCH_BYTES", 3 * 16 * 16 * 4)
    assert np.allclose(predictor.predict_levels(levels)["probabilities"], at_once, atol=1e-6)


def test_stored_rows_give_what_their_levels_give(
    portable: tuple[Portable, bytes], levels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(portable[1])
    at_once = predictor.predict_levels(levels)["probabilities"]
    monkeypatch.setattr(predict, "BATCH_BYTES", 3 * 16 * 16 * 4)
    rows = ArrayExamples(levels, np.zeros(len(levels), np.int64))
    assert np.allclose(predictor.score(rows), at_once, atol=1e-6)


def test_no_images_give_no_probabilities(portable: tuple[Portable, bytes]) -> None:
    predictor = Predictor.load(portable[1])
    assert predictor.predict_levels(np.empty((0, 16, 16), np.uint8))["probabilities"].shape == (0, 2)
    assert predictor.predict_units([]) == []


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (1, 3, 16, 16)])
def test_an_input_of_another_shape_is_refused_with_the_right_one(
    portable: tuple[Portable, bytes], shape: tuple[int, ...]
) -> None:
    with pytest.raises(UserFault, match=r"give \(batch, 1, height, width\), a single image too"):
        Predictor.load(portable[1]).run(np.zeros(shape, np.float32))


def test_something_else_than_a_model_is_the_users_fault() -> None:
    with pytest.raises(UserFault, match="not an ONNX model"):
        Predictor.load(b"not a model")


def test_a_missing_file_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="nowhere"):
        Predictor.load(tmp_path / "nowhere.onnx")


def test_a_model_of_somebody_else_is_the_users_fault(portable: tuple[Portable, bytes]) -> None:
    model = onnx.load_model_from_string(portable[1])
    del model.metadata_props[:]
    with pytest.raises(UserFault, match=r"lack classes, spec, threshold"):
        Predictor.load(model.SerializeToString())


@pytest.mark.slow
def test_prediction_does_not_load_torch() -> None:
    code = "import sys, models.portable.predictor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
