"""Every network of the catalog takes one channel of any size and gives logits."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from imaging.errors import UserFault
from models.networks.catalog import NETWORKS, build
from models.networks.residual import ResidualBlock


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (33, 47)])
def test_logits_have_one_column_per_class(name: str, shape: tuple[int, int]) -> None:
    assert build(name, 3).eval()(torch.zeros(2, 1, *shape)).shape == (2, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_takes_part_in_the_result(name: str) -> None:
    network = build(name, 2)
    network(torch.randn(4, 1, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build(name, 2).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_unknown_network_is_the_users_fault_and_lists_the_names() -> None:
    with pytest.raises(UserFault, match=r"'vgg'.*small_cnn.*residual_small.*resnet18.*mobilenet_v3_small"):
        build("vgg", 2)


def test_the_small_network_has_two_convolutions_and_two_linear_layers() -> None:
    layers = list(build("small_cnn", 2))  # type: ignore[arg-type]
    kinds = [type(layer) for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.Linear, nn.Linear]


def test_the_small_network_sees_each_image_alone_while_training() -> None:
    network, images = build("small_cnn", 2).train(), torch.randn(4, 1, 28, 28)
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-5)


def test_a_residual_block_halves_the_image() -> None:
    assert ResidualBlock(16, 32, stride=2)(torch.zeros(1, 16, 28, 28)).shape == (1, 32, 14, 14)


def test_a_block_of_the_same_shape_has_a_plain_shortcut() -> None:
    assert isinstance(ResidualBlock(16, 16, stride=1).shortcut, nn.Identity)


@pytest.mark.parametrize(("name", "left"), [("resnet18", 4), ("mobilenet_v3_small", 2)])
def test_small_images_keep_some_pixels_to_the_end(name: str, left: int) -> None:
    seen = []
    network = build(name, 2).eval()
    pooling = network.get_submodule("avgpool")
    pooling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    network(torch.zeros(1, 1, 28, 28))
    assert seen == [left]


@pytest.mark.slow
def test_the_catalog_does_not_load_torchvision() -> None:
    code = "import sys, models.training.loop; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
