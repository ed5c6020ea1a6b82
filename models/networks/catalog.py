"""The table of networks, by the names that a person may choose. Torch is loaded only when a network is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec

if TYPE_CHECKING:
    from torch import nn

Output = Literal["classes", "masks"]
"""What a network gives: logits of an example (n, outputs), or of its pixels (n, outputs, [slices,] height, width)."""

KINDS: Mapping[int, str] = {2: "slice", 3: "volume"}
"""Kinds of an example, by the dimensions of the networks that are made for them; see `PreprocessSpec.kind`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A row of the table.

    `build` takes the numbers of outputs and of channels and returns a module of float (n, channels, height, width); of
    three `dimensions`, the channels are slices, which lie in space.
    """

    build: Callable[[int, int], "nn.Module"]
    parameters: int
    """Of two outputs and one channel, or 32 slices in space."""
    title: str
    dimensions: Literal[2, 3] = 2
    output: Output = "classes"
    least_px: int = 16
    """Side of the smallest images that leave a pixel on every scale."""


def _built(module: str, function: str, outputs: int, channels: int, **arguments: object) -> "nn.Module":
    return getattr(import_module(f"models.networks.{module}"), function)(outputs, channels, **arguments)


def _torchvision(name: str, title: str, small: int, large: int) -> dict[str, Network]:
    """Return a network of torchvision with either stem."""
    build = partial(_built, "torchvision_networks")
    return {
        name: Network(
            build=partial(build, "for_small_images", name=name),
            parameters=small,
            title=f"{title}, a stem for images up to some 96 px",
        ),
        f"{name}_224": Network(
            build=partial(build, "for_large_images", name=name),
            parameters=large,
            title=f"{title}, the published stem for larger images",
            least_px=32,
        ),
    }


NETWORKS: Mapping[str, Network] = {
    "small_cnn": Network(
        build=partial(_built, "small_cnn", "small_cnn"), parameters=105_346, title="Two convolutions"
    ),
    "residual_small": Network(
        build=partial(_built, "residual", "residual_small"),
        parameters=302_834,
        title="Residual network of four scales",
    ),
    **_torchvision("resnet18", "ResNet-18", 11_168_706, 11_171_266),
    **_torchvision("resnet34", "ResNet-34", 21_276_866, 21_279_426),
    **_torchvision("resnet50", "ResNet-50", 23_503_298, 23_505_858),
    **_torchvision("mobilenet_v2", "MobileNetV2", 2_225_858, 2_225_858),
    **_torchvision("mobilenet_v3_small", "MobileNetV3-small", 1_519_618, 1_519_618),
    **_torchvision("mobilenet_v3_large", "MobileNetV3-large", 4_204_306, 4_204_306),
    **_torchvision("densenet121", "DenseNet-121", 6_947_074, 6_949_634),
    **_torchvision("efficientnet_b0", "EfficientNet-B0", 4_009_534, 4_009_534),
    "residual_small_3d": Network(
        build=partial(_built, "residual", "residual_small", dimensions=3),
        parameters=883_730,
        title="Residual network of four scales, of volumes",
        dimensions=3,
    ),
    "resnet18_3d": Network(
        build=partial(_built, "torchvision_networks", "resnet18_3d"),
        parameters=33_148_482,
        title="ResNet-18 of volumes (R3D)",
        dimensions=3,
    ),
    "unet": Network(
        build=partial(_built, "unet", "unet"),
        parameters=1_792_998,
        title="U-Net, residual encoder",
        output="masks",
    ),
    "unet_3d": Network(
        build=partial(_built, "unet", "unet_3d"),
        parameters=5_107_974,
        title="U-Net of volumes, residual encoder",
        dimensions=3,
        output="masks",
    ),
}


def build(name: str, outputs: int, channels: int = 1) -> "nn.Module":
    """Return the named network with fresh weights, drawn from torch's global generator.

    An image has one channel; the slices of a volume are its channels. Raises UserFault if the table does not have the
    name.

    >>> sum(p.numel() for p in build("small_cnn", 2).parameters())
    105346
    """
    return _row(name).build(outputs, channels)


def names_of(output: Output, kind: str) -> list[str]:
    """Return the networks that give this of examples of a kind, "slice" or "volume".

    A network of images takes a volume's slices as channels, so that it gives classes of volumes too.

    >>> names_of("masks", "slice"), names_of("masks", "volume")
    (['unet'], ['unet_3d'])
    """
    return [name for name, row in NETWORKS.items() if row.output == output and _takes(row, kind)]


def wrong_output(name: str, output: Output) -> str:
    """Return that a network gives something else than this, and which networks give it; or nothing."""
    given = _row(name).output
    choices = [other for other, row in NETWORKS.items() if row.output == output]
    return (
        ""
        if given == output
        else f"network {name!r} gives {given}, not {output}: choose one of {', '.join(choices)}"
    )


def check_network(name: str, output: Output, spec: PreprocessSpec) -> None:
    """Raise UserFault unless a network gives this of prepared examples; the message names the networks that do."""
    row, remedy = _row(name), f"choose one of {', '.join(names_of(output, spec.kind))}"
    refusal = wrong_output(name, output)
    if not refusal and not _takes(row, spec.kind):
        refusal = (
            f"network {name!r} is made for examples of the kind {KINDS[row.dimensions]}, and these are of the kind "
            f"{spec.kind}: {remedy}"
        )
    if not refusal and spec.size_px < row.least_px:
        refusal = (
            f"network {name!r} needs images of {row.least_px} px, and these have {spec.size_px}: {remedy}"
        )
    if refusal:
        raise UserFault(refusal)


def _takes(row: Network, kind: str) -> bool:
    return KINDS[row.dimensions] == kind or (row.dimensions == 2 and row.output == "classes")


def _row(name: str) -> Network:
    if name not in NETWORKS:
        raise UserFault(f"no network is called {name!r}: choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]
