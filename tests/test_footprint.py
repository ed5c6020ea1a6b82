"""Footprint of a training: what a process needs is counted without memory, and refused where it does not fit."""

import numpy as np
import pytest

from imaging.errors import UserFault
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.training import footprint as module
from models.training.batches import ArrayExamples
from models.training.footprint import BACKWARD, COPIES, PROCESS_BYTES, check_fits, footprint
from models.training.worker import TrainData

CONFIG = TrainConfig(network="small_cnn", batch_size=10, workers=3)


def data(size_px: int = 16, slices: int | None = None) -> TrainData:
    images = np.zeros((4, *((slices,) if slices else ()), size_px, size_px), np.uint8)
    rows = ArrayExamples(images, np.arange(4) % 2)
    return TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "lesion")))


def test_all_parameters_of_the_network_are_counted() -> None:
    assert footprint(CONFIG, data()).parameters == 105_346


def test_slices_are_channels_of_the_first_layer() -> None:
    more = footprint(CONFIG, data(slices=5)).parameters - footprint(CONFIG, data()).parameters
    assert more == 4 * 16 * 3 * 3


def test_activations_are_the_outputs_of_all_layers_for_the_share_of_a_batch() -> None:
    # Two convolutions, each with its ReLU and pooling, then flattened, two linear layers and a ReLU.
    outputs = 2 * 16 * 16**2 + 16 * 8**2 + 2 * 32 * 8**2 + 2 * 32 * 7**2 + 64 + 64 + 2
    assert footprint(CONFIG, data()).activation_bytes == 4 * 4 * outputs


def test_a_process_has_its_libraries_the_copies_of_the_weights_and_both_passes() -> None:
    one = footprint(CONFIG, data())
    assert one.process_bytes == PROCESS_BYTES + 4 * COPIES * 105_346 + BACKWARD * one.activation_bytes


def test_a_huge_image_is_counted_without_being_allocated() -> None:
    # 300 TB of activations.
    assert footprint(CONFIG.model_copy(update={"batch_size": 65_536}), data(8_192)).process_bytes > 2**48


def test_what_fits_in_all_processes_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda: 3 * footprint(CONFIG, data()).process_bytes)
    check_fits(CONFIG, data(), 3)


def test_what_does_not_fit_is_refused_with_need_limit_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda: 2**30)
    expected = (
        r"batches of 10 needs about 0\.6 GiB in each of 3 processes, and 1\.0 GiB are free: lower batch_size"
    )
    with pytest.raises(UserFault, match=expected):
        check_fits(CONFIG, data(), 3)
