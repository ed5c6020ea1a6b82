"""The small residual network, which is the default: made for small images and processors without a GPU."""

import itertools

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64, 128)
"""Channels of each stage; every stage after the first halves the image."""


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, He et al. 2016, https://arxiv.org/abs/1603.05027 (post-activation)."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inward, outward, stride)
        self.second = convolution(outward, outward, 1)
        same = stride == 1 and inward == outward
        self.shortcut = nn.Identity() if same else convolution(inward, outward, stride, kernel=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, inward, height, width) to (n, outward, height / stride, width / stride)."""
        hidden = functional.relu(self.first(image))
        return functional.relu(self.second(hidden) + self.shortcut(image))


def convolution(inward: int, outward: int, stride: int, kernel: int = 3) -> nn.Module:
    """Return a convolution and its normalisation.

    Group normalisation would not depend on how many workers share a batch, but its validation loss on chest
    radiographs was a third higher.
    """
    return nn.Sequential(
        nn.Conv2d(inward, outward, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outward),
    )


def residual_small(classes: int, channels: int) -> nn.Module:
    """Return the network, for images of any size from 8 px."""
    stages = [ResidualBlock(inward, outward, stride=2) for inward, outward in itertools.pairwise(WIDTHS)]
    return nn.Sequential(
        convolution(channels, WIDTHS[0], 1),
        nn.ReLU(),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], classes),
    )
