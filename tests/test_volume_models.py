"""A volume is an example like a slice is: a network is trained on volumes, exported, and predicts the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from imaging.preprocess.slice import planes
from imaging.preprocess.spec import PreprocessSpec
from models.config import AugmentConfig, TrainConfig
from models.objectives.classification import Classification
from models.portable.export import export_onnx, verify_export
from models.portable.predictor import Predictor
from models.training.batches import ArrayExamples, normalise
from models.training.checkpoint import best_network
from models.training.epoch_history import read_history
from models.training.launch import launch
from models.training.worker import TrainData

pytestmark = pytest.mark.slow

SPEC = PreprocessSpec(kind="volume", slices=6, size_px=16)
OBJECTIVE = Classification(classes=("plain", "lesion"))


def lesions(count: int, seed: int) -> ArrayExamples:
    """Return noise (count, 6, 16, 16) with a bright ball in every third volume, which is of class 1."""
    draw = np.random.default_rng(seed)
    images = draw.integers(40, 120, (count, *SPEC.shape), dtype=np.uint8)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    images[labels == 1, 2:5, 5:10, 5:10] += 90
    return ArrayExamples(images, labels)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    still = AugmentConfig(shift_fraction=0, rotate_deg=0, scale=0, contrast=0, brightness=0)
    config = TrainConfig(network="small_cnn", epochs=6, batch_size=16, workers=1, augment=still)
    launch(config, TrainData(train=lesions(96, 0), val=lesions(33, 1), objective=OBJECTIVE), folder)
    return folder


def test_it_learns_to_see_a_bright_ball(trained: Path) -> None:
    assert read_history(trained)[-1]["val_auroc"] > 0.95


def test_the_portable_file_predicts_what_the_network_does(trained: Path) -> None:
    network = best_network(trained / "checkpoint", OBJECTIVE, "small_cnn", SPEC.channels)
    predictor = Predictor.load(export_onnx(network, SPEC, OBJECTIVE).SerializeToString())
    rows = lesions(20, 2)
    with torch.no_grad():
        wanted = network(normalise(torch.from_numpy(planes(rows.images)).float())).softmax(dim=1).numpy()
    np.testing.assert_allclose(predictor.score(rows), wanted, atol=1e-4)


def test_the_portable_file_of_either_order_is_proved(trained: Path) -> None:
    network = best_network(trained / "checkpoint", OBJECTIVE, "small_cnn", SPEC.channels)
    for order in ("window-resize", "resize-window"):
        spec = SPEC.model_copy(update={"order": order})
        assert verify_export(export_onnx(network, spec, OBJECTIVE), network, spec, OBJECTIVE) <= 1e-4


def test_a_network_of_volumes_learns_it_with_the_slices_as_depth(tmp_path: Path) -> None:
    config = TrainConfig(network="residual_small_3d", epochs=3, batch_size=16, workers=1, measure="loss")
    launch(config, TrainData(train=lesions(48, 0), val=lesions(33, 1), objective=OBJECTIVE), tmp_path)
    assert read_history(tmp_path)[-1]["val_auroc"] > 0.95
