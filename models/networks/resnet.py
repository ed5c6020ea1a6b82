"""ResNet-18 for small images of any number of channels."""

from torch import nn


def resnet18(classes: int, channels: int) -> nn.Module:
    """Return torchvision's ResNet-18 without weights, with a stem of stride 1 and no pooling.

    The usual stem (7x7, stride 2, pooling) leaves a 28 px image one pixel wide at the last stage; the 3x3 stem
    is the one that He et al. 2015 (https://arxiv.org/abs/1512.03385, 4.2) use at 32 px.
    """
    # Imported here: torchvision takes seconds, and workers that train another network should not wait.
    from torchvision import models

    network: nn.Module = models.resnet18(weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network
