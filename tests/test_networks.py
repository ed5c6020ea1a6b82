"""Every network of the catalog takes images or volumes of any size and gives logits of classes or of masks."""

import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from models.networks.catalog import NETWORKS, build, check_network, names_of
from models.networks.residual import ResidualBlock
from models.networks.torchvision_networks import STEMS
from models.networks.unet import UNet, VolumePooling, VoxelConvolution, strides_of
from models.objectives.protocol import named_outputs

SMALL = ["small_cnn", "residual_small", "residual_small_3d", "unet", "unet_3d"]
NAMES = [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
IMAGES, VOLUMES = names_of("classes", "slice"), [name for name in NETWORKS if NETWORKS[name].dimensions == 3]
SLICES = 6


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def channels_of(name: str) -> int:
    return SLICES if name in VOLUMES else 1


def outputs_of(network: nn.Module, images: Tensor) -> Mapping[str, Tensor]:
    return named_outputs(network(images))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(32, 32), (33, 47)])
def test_each_output_has_a_logit_per_example_or_pixel(name: str, shape: tuple[int, int]) -> None:
    channels = channels_of(name)
    outputs = outputs_of(build(name, 3, channels).eval(), torch.zeros(2, channels, *shape))
    place = {"classes": (), "masks": (SLICES, *shape) if name in VOLUMES else shape}[NETWORKS[name].output]
    assert {key: tuple(logits.shape) for key, logits in outputs.items()} == {"logits": (2, 3, *place)}


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_takes_part_in_the_result(name: str) -> None:
    network = build(name, 2, channels_of(name))
    outputs = outputs_of(network, torch.randn(3, channels_of(name), 32, 32))
    torch.stack([logits.square().sum() for logits in outputs.values()]).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build(name, 2).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_table_states_the_number_of_weights(name: str) -> None:
    with torch.device("meta"):
        network = build(name, 2, 32 if name in VOLUMES else 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == NETWORKS[name].parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_a_network_of_images_takes_any_number_of_channels(name: str) -> None:
    assert build(name, 2, 5).eval()(torch.zeros(2, 5, 32, 32)).shape == (2, 2)


def test_an_unknown_network_is_the_users_fault_and_lists_the_names() -> None:
    with pytest.raises(UserFault, match=r"'vgg'.*small_cnn.*residual_small.*resnet18.*mobilenet_v3_small"):
        build("vgg", 2)


@pytest.mark.parametrize(
    ("name", "output", "kind", "message"),
    [
        ("residual_small", "masks", "slice", "gives classes, not masks: choose one of unet, unet_3d"),
        ("unet", "classes", "slice", "gives masks, not classes: choose one of small_cnn, residual_small"),
        (
            "resnet18_3d",
            "classes",
            "slice",
            "of the kind slice: choose one of small_cnn.*efficientnet_b0_224$",
        ),
        ("unet", "masks", "volume", "of the kind volume: choose one of unet_3d$"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_with_the_choices(
    name: str, output: str, kind: str, message: str
) -> None:
    with pytest.raises(UserFault, match=f"network '{name}' .*{message}"):
        check_network(name, output, PreprocessSpec(kind=kind))  # type: ignore[arg-type]


def test_images_that_leave_no_pixel_are_refused() -> None:
    with pytest.raises(
        UserFault, match="'densenet121_224' needs images of 32 px, and these have 28: choose one"
    ):
        check_network("densenet121_224", "classes", PreprocessSpec(size_px=28))


@pytest.mark.parametrize("name", ["small_cnn", "resnet50", "resnet18_3d"])
def test_networks_of_images_and_of_volumes_give_classes_of_volumes(name: str) -> None:
    check_network(name, "classes", PreprocessSpec(kind="volume"))


def test_the_small_network_has_two_convolutions_and_two_linear_layers() -> None:
    layers = list(build("small_cnn", 2))  # type: ignore[arg-type]
    kinds = [type(layer) for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.Linear, nn.Linear]


@pytest.mark.parametrize("name", ["small_cnn", "unet", "unet_3d"])
def test_a_network_without_batch_statistics_sees_each_image_alone_while_training(name: str) -> None:
    network, images = build(name, 2, channels_of(name)).train(), torch.randn(3, channels_of(name), 28, 28)
    together, alone = outputs_of(network, images), outputs_of(network, images[:1])
    assert all(torch.allclose(together[key][:1], alone[key], atol=1e-5) for key in together)


def test_a_residual_block_halves_the_image() -> None:
    assert ResidualBlock(16, 32, stride=2)(torch.zeros(1, 16, 28, 28)).shape == (1, 32, 14, 14)


def test_a_block_of_the_same_shape_has_a_plain_shortcut() -> None:
    assert isinstance(ResidualBlock(16, 16, stride=1).shortcut, nn.Identity)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("unet", {"logits": (40, 36), "logits_2": (20, 18), "logits_4": (10, 9)}),
        ("unet_3d", {"logits": (10, 40, 36), "logits_2": (10, 20, 18), "logits_4": (10, 10, 9)}),
    ],
)
def test_a_u_net_has_logits_of_coarser_scales_in_training_mode_alone(
    name: str, sizes: dict[str, tuple[int, ...]]
) -> None:
    network = build(name, 2, 10 if name == "unet_3d" else 1)
    image = torch.zeros(2, 10 if name == "unet_3d" else 1, 40, 36)
    assert {key: tuple(logits.shape[2:]) for key, logits in network.train()(image).items()} == sizes
    assert set(network.eval()(image)) == {"logits"}


@pytest.mark.parametrize(("slices", "halved"), [(2, 0), (7, 0), (8, 1), (15, 1), (16, 2), (64, 4), (512, 4)])
def test_slices_are_halved_on_the_coarsest_scales_while_four_are_left(slices: int, halved: int) -> None:
    assert [first for first, *_ in strides_of(slices)] == [1] * (4 - halved) + [2] * halved


def test_a_u_net_of_volumes_takes_patches_of_fewer_slices() -> None:
    network = build("unet_3d", 2, 32).eval()
    assert network(torch.zeros(2, 5, 32, 16))["logits"].shape == (2, 2, 5, 32, 16)


def test_a_u_net_moves_with_the_image() -> None:
    torch.manual_seed(0)
    network = build("unet", 2).eval()
    # Normalisation sees the whole image: the bright square stays inside it, far from the borders.
    image = torch.zeros(1, 1, 160, 160)
    image[..., 64:80, 64:80] = 1
    with torch.no_grad():
        before, after = network(image)["logits"], network(image.roll(16, dims=-1))["logits"]
    assert torch.allclose(before[..., 48:96, 48:96], after[..., 48:96, 64:112], atol=1e-2)
    assert before.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_networks_of_the_first_release_are_what_they_were(name: str) -> None:
    import torchvision

    torch.manual_seed(3)
    first = getattr(torchvision.models, name)(weights=None, num_classes=2)
    if name == "resnet18":
        first.conv1, first.maxpool = nn.Conv2d(4, 64, 3, stride=1, padding=1, bias=False), nn.Identity()
    else:
        first.features[0][0] = nn.Conv2d(4, 16, 3, stride=1, padding=1, bias=False)
    torch.manual_seed(3)
    network, images = build(name, 2, 4).eval(), torch.randn(2, 4, 28, 28)
    given, wanted = network.state_dict(), first.state_dict()
    assert list(given) == list(wanted)
    assert all(torch.equal(given[key], wanted[key]) for key in wanted)
    assert torch.equal(network(images), first.eval()(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", STEMS)
def test_published_weights_fit_the_published_stem(name: str) -> None:
    import torchvision

    with torch.device("meta"):
        published = getattr(torchvision.models, name)(weights=None).state_dict()
        network = build(f"{name}_224", 1000, 3).state_dict()
    assert {key: value.shape for key, value in network.items()} == {
        key: value.shape for key, value in published.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "left"), [("resnet18", 4), ("mobilenet_v3_small", 2), ("resnet18_224", 1)])
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


@pytest.mark.slow
def test_the_table_does_not_load_torch() -> None:
    code = "import sys, models.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_single_volume_is_the_first_of_two() -> None:
    network, volume = build("unet_3d", 2, SLICES).eval(), torch.randn(1, SLICES, 16, 16)
    assert torch.allclose(
        network(volume)["logits"], network(volume.repeat(2, 1, 1, 1))["logits"][:1], atol=1e-6
    )
    assert isinstance(network, UNet)


@pytest.mark.parametrize("slices", [8, 12])
def test_the_memory_format_of_a_volume_changes_no_logits_and_no_gradients(slices: int) -> None:
    torch.manual_seed(0)
    network, image = build("unet_3d", 3, slices), torch.rand(2, slices, 20, 18)
    results = []
    for form in (torch.contiguous_format, torch.channels_last_3d):
        network.to(memory_format=form).zero_grad()
        logits = network(image)["logits"]
        logits.square().mean().backward()
        results.append(
            [logits.detach(), *(one.grad.clone() for one in network.parameters() if one.grad is not None)]
        )
    for plain, last in zip(*results, strict=True):
        torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-4)


def test_pooling_and_convolution_of_voxels_keep_the_channels_last() -> None:
    volume = torch.rand(2, 8, 5, 7, 6).contiguous(memory_format=torch.channels_last_3d)
    pooling = VolumePooling((1, 2, 2))
    voxels = VoxelConvolution(8, 3, 1)
    for made, wanted in (
        (pooling(volume), functional.avg_pool3d(volume, (1, 2, 2), ceil_mode=True, count_include_pad=False)),
        (voxels(volume), functional.conv3d(volume, voxels.weight, voxels.bias)),
    ):
        torch.testing.assert_close(made, wanted)
        assert made.is_contiguous(memory_format=torch.channels_last_3d)
