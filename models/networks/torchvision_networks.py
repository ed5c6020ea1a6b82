"""Networks of torchvision without weights, for any number of channels, with a stem for small or for large images.

The published stems halve an image once or twice before the first block, which leaves a 28 px image one pixel wide at
the last one. A stem for small images is a 3x3 convolution of stride 1 without pooling, as He et al. 2015
(https://arxiv.org/abs/1512.03385, 4.2) use it at 32 px; the work grows by four or sixteen times with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from models.networks.layers import StackConv3d


@dataclass(frozen=True, slots=True)
class Stem:
    """Paths of the first convolution of a network and, where it has one, of the pooling behind it."""

    convolution: str
    pooling: str = ""


STEMS: Mapping[str, Stem] = {
    "resnet18": Stem("conv1", "maxpool"),
    "resnet34": Stem("conv1", "maxpool"),
    "resnet50": Stem("conv1", "maxpool"),
    "mobilenet_v2": Stem("features.0.0"),
    "mobilenet_v3_small": Stem("features.0.0"),
    "mobilenet_v3_large": Stem("features.0.0"),
    "densenet121": Stem("features.conv0", "features.pool0"),
    "efficientnet_b0": Stem("features.0.0"),
}
"""By torchvision's name of the network."""


def for_small_images(classes: int, channels: int, name: str) -> nn.Module:
    """Return a network whose stem does not shrink the image, for images up to some 96 px."""
    network, stem = _network(name, classes), STEMS[name]
    network.set_submodule(
        stem.convolution,
        nn.Conv2d(channels, _first(network, stem).out_channels, 3, stride=1, padding=1, bias=False),
    )
    if stem.pooling:
        network.set_submodule(stem.pooling, nn.Identity())
    return network


def for_large_images(classes: int, channels: int, name: str) -> nn.Module:
    """Return a network with the published stem, made for 224 px; published weights fit it."""
    network, stem = _network(name, classes), STEMS[name]
    if channels != 3:
        published = _first(network, stem)
        same = {key: getattr(published, key) for key in ("out_channels", "kernel_size", "stride", "padding")}
        network.set_submodule(stem.convolution, nn.Conv2d(channels, bias=False, **same))
    return network


def resnet18_3d(classes: int, slices: int) -> nn.Module:
    """Return torchvision's ResNet-18 of videos for volumes.

    It is R3D of Tran et al. 2018, https://arxiv.org/abs/1711.11248. Its stem halves rows and columns alone.
    """
    network: nn.Module = _torchvision().video.r3d_18(weights=None, num_classes=classes)
    network.set_submodule("stem.0", StackConv3d(1, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False))
    return network


def _first(network: nn.Module, stem: Stem) -> nn.Conv2d:
    layer = network.get_submodule(stem.convolution)
    assert isinstance(layer, nn.Conv2d)
    return layer


def _network(name: str, classes: int) -> nn.Module:
    network: nn.Module = getattr(_torchvision(), name)(weights=None, num_classes=classes)
    return network


def _torchvision() -> ModuleType:
    # Imported here: it takes seconds, and workers that train another network should not wait.
    from torchvision import models

    return models
