"""Networks of torchvision for small images of any number of channels: their stems do not shrink the image."""

from types import ModuleType

from torch import nn


def resnet18(classes: int, channels: int) -> nn.Module:
    """Return torchvision's ResNet-18 without weights, with a stem of stride 1 and no pooling.

    The usual stem (7x7, stride 2, pooling) leaves a 28 px image one pixel wide at the last stage; the 3x3 stem
    is the one that He et al. 2015 (https://arxiv.org/abs/1512.03385, 4.2) use at 32 px.
    """
    network: nn.Module = _torchvision().resnet18(weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def mobilenet_v3_small(classes: int, channels: int) -> nn.Module:
    """Return torchvision's MobileNetV3-small without weights, with a stem of stride 1.

    Howard et al. 2019, https://arxiv.org/abs/1905.02244, halve 224 px five times; with a stem of stride 1 a
    28 px image still has two pixels at the end.
    """
    network: nn.Module = _torchvision().mobilenet_v3_small(weights=None, num_classes=classes)
    stem = network.get_submodule("features.0")
    stem[0] = nn.Conv2d(channels, 16, 3, stride=1, padding=1, bias=False)  # type: ignore[operator]
    return network


def _torchvision() -> ModuleType:
    # Imported here: it takes seconds, and workers that train another network should not wait.
    from torchvision import models

    return models
