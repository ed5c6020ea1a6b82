"""MobileNetV3-small for small images of any number of channels."""

from torch import nn


def mobilenet_v3_small(classes: int, channels: int) -> nn.Module:
    """Return torchvision's MobileNetV3-small without weights, with a stem of stride 1.

    Howard et al. 2019, https://arxiv.org/abs/1905.02244, halve 224 px five times; with a stem of stride 1 a
    28 px image still has two pixels at the end.
    """
    # Imported here: torchvision takes seconds, and workers that train another network should not wait.
    from torchvision import models

    network: nn.Module = models.mobilenet_v3_small(weights=None, num_classes=classes)
    stem = network.get_submodule("features.0")
    stem[0] = nn.Conv2d(channels, 16, 3, stride=1, padding=1, bias=False)  # type: ignore[operator]
    return network
