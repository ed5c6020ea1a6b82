"""Weights that a training starts from: what fits is taken, what does not is drawn anew or refused with both names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from imaging.errors import UserFault
from imaging.store.folder_store import FolderStore
from models.config import OptimizerConfig, StartConfig, TrainConfig
from models.networks.catalog import build
from models.networks.weights_file import read_description
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples
from models.training.checkpoint import save_weights
from models.training.launch import launch
from models.training.optimization import make_optimizer, set_learning_rate
from models.training.start import begin, open_start, set_depth_rates, take
from models.training.worker import TrainData

CLASSES = {"classes": json.dumps(["plain", "lesion"])}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return weights of small_cnn for images of one channel and two classes."""
    torch.set_num_threads(1)
    torch.manual_seed(9)
    save_weights(build("small_cnn", 2).state_dict(), tmp_path / "w.safetensors", "small_cnn", CLASSES)
    return tmp_path / "w.safetensors"


def configured(file: Path, network: str = "small_cnn", mode: str = "full") -> TrainConfig:
    return TrainConfig.model_validate(
        {"network": network, "start": {"weights": str(file), "mode": mode}, "epochs": 1, "workers": 1}
    )


def begun(config: TrainConfig, network: nn.Module, metadata: dict[str, str] = CLASSES) -> list[str]:
    start = open_start(config, FolderStore(Path("unused")))
    assert start is not None
    lines = take(network, config.network, metadata, start).lines(start.what)
    begin(network, config, metadata, start)
    return lines


def test_all_weights_are_taken_where_classes_and_channels_are_the_same(file: Path) -> None:
    network = build("small_cnn", 2)
    assert begun(configured(file), network) == [f"Starts from 8 tensors of {file}"]
    stored = load_file(file)
    assert all(torch.equal(stored[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("classes", "outputs"), [(["plain", "mass"], 2), (["a", "b", "c"], 3)], ids=["others", "more"]
)
def test_a_head_of_other_classes_is_drawn_anew(file: Path, classes: list[str], outputs: int) -> None:
    network = build("small_cnn", outputs)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    line = begun(configured(file), network, {"classes": json.dumps(classes)})[-1]
    assert (
        line
        == f"The head is drawn anew: the classes were {CLASSES['classes']}, and are {json.dumps(classes)}"
    )
    stored, now = load_file(file), network.state_dict()
    assert torch.equal(now["9.weight"], before["9.weight"])
    assert torch.equal(now["7.weight"], stored["7.weight"])


def test_grey_images_give_what_colour_images_of_equal_channels_gave(tmp_path: Path) -> None:
    colour, grey = build("residual_small", 2, 3).eval(), build("residual_small", 2, 1).eval()
    save_file(colour.state_dict(), tmp_path / "colour.safetensors")
    lines = begun(configured(tmp_path / "colour.safetensors", "residual_small"), grey, {})
    assert lines[1] == "The first layer is adapted from 3 to 1 channels (sum over channels / 1)"
    image = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(grey(image), colour(image.repeat(1, 3, 1, 1)))


def test_slices_of_one_picture_give_what_the_picture_gave(tmp_path: Path) -> None:
    grey, slices = build("residual_small", 2, 1).eval(), build("residual_small", 2, 5).eval()
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    begun(configured(tmp_path / "grey.safetensors", "residual_small"), slices, {})
    image = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(slices(image.repeat(1, 5, 1, 1)), grey(image))


def test_a_checkpoint_of_another_network_is_refused_with_both_names(file: Path) -> None:
    with pytest.raises(
        UserFault, match="weights of the network 'small_cnn', and 'residual_small' is to be trained"
    ):
        begun(configured(file, "residual_small"), build("residual_small", 2))


@pytest.mark.parametrize("network", ["residual_small", "unet"])
def test_weights_of_another_program_that_do_not_fit_are_refused(tmp_path: Path, network: str) -> None:
    save_file(build("small_cnn", 2).state_dict(), tmp_path / "w.safetensors")
    start = open_start(configured(tmp_path / "w.safetensors"), FolderStore(tmp_path))
    assert start is not None
    with pytest.raises(UserFault, match=f"does not hold the weights of '{network}': it lacks .* and more"):
        take(build(network, 2), network, {}, start)


def test_a_layer_of_another_size_is_refused(tmp_path: Path) -> None:
    weights = build("small_cnn", 2).state_dict() | {"7.weight": torch.zeros(3, 3)}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(UserFault, match=r"7.weight has the shape \(3, 3\), and \(64, 1568\) is needed"):
        begun(configured(tmp_path / "w.safetensors"), build("small_cnn", 2), {})


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = build("small_cnn", 2).state_dict()
    weights["7.bias"][3] = float("nan")
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(UserFault, match=r"values in 7.bias that are no numbers"):
        begun(configured(tmp_path / "w.safetensors"), build("small_cnn", 2), {})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 pickled", b"\x80\x02}q\x00.", b"\xff" * 16])
def test_a_file_that_is_no_safetensors_is_refused_and_never_unpickled(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserFault, match="no safetensors file: nothing else is read"):
        read_description(tmp_path / "w.pt")


def test_frozen_trains_the_head_alone(file: Path, tmp_path: Path) -> None:
    config = configured(file, mode="frozen")
    draw = np.random.default_rng(0)
    rows = ArrayExamples(draw.integers(0, 256, (16, 16, 16), dtype=np.uint8), np.arange(16) % 2)
    objective = Classification(classes=("plain", "lesion"))
    start = open_start(config, FolderStore(tmp_path))
    launch(config, TrainData(train=rows, val=rows, objective=objective, start=start), tmp_path / "run")
    before, after = load_file(file), load_file(tmp_path / "run/checkpoint/network.safetensors")
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"9.weight", "9.bias"}


def test_earlier_layers_learn_more_slowly_and_the_head_at_the_full_rate() -> None:
    network = build("residual_small", 2)
    optimizer = make_optimizer(network, OptimizerConfig())
    set_depth_rates(optimizer, network, StartConfig(weights="w", mode="discriminative"))
    set_learning_rate(optimizer, 1.0)
    rate_of = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    rates = [rate_of[id(one)] for one in network.parameters()]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(2.6**-4)
    assert rates[-2:] == [1.0, 1.0]
    decays = {id(one): group["weight_decay"] for group in optimizer.param_groups for one in group["params"]}
    assert decays[id(network.get_parameter("7.bias"))] == 0


def test_a_mode_without_weights_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"no weights are given: set start.weights"):
        StartConfig(mode="frozen")


def test_a_start_is_part_of_the_digest() -> None:
    assert TrainConfig(start=StartConfig(weights="weights:a")).digest != TrainConfig().digest
