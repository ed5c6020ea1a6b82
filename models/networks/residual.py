"""The small residual network, which is the default: made for small images and processors without a GPU."""

import itertools
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional

from models.networks.layers import CONVOLUTIONS, first_convolution

WIDTHS = (16, 32, 64, 128)
"""Channels of each stage; every stage after the first halves the image."""

NORMS: Mapping[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
"""By the number of dimensions. Group normalisation would not depend on how many workers share a batch, but its
validation loss on chest radiographs was a third higher."""


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, He et al. 2016, https://arxiv.org/abs/1603.05027 (post-activation)."""

    def __init__(self, inward: int, outward: int, stride: int, dimensions: int = 2) -> None:
        super().__init__()
        self.first = convolution(inward, outward, stride, dimensions)
        self.second = convolution(outward, outward, 1, dimensions)
        same = stride == 1 and inward == outward
        self.shortcut = nn.Identity() if same else convolution(inward, outward, stride, dimensions, kernel=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, inward, [slices,] height, width) to (n, outward, ...), each side divided by the stride."""
        hidden = functional.relu(self.first(image))
        return functional.relu(self.second(hidden) + self.shortcut(image))


def convolution(inward: int, outward: int, stride: int, dimensions: int, kernel: int = 3) -> nn.Module:
    """Return a convolution and its normalisation."""
    return nn.Sequential(
        CONVOLUTIONS[dimensions](inward, outward, kernel, stride, padding=kernel // 2, bias=False),
        NORMS[dimensions](outward),
    )


def residual_small(classes: int, channels: int, dimensions: int = 2) -> nn.Module:
    """Return the network, for images of any size from 8 px; of three dimensions it takes volumes."""
    stages = [
        ResidualBlock(inward, outward, stride=2, dimensions=dimensions)
        for inward, outward in itertools.pairwise(WIDTHS)
    ]
    return nn.Sequential(
        nn.Sequential(
            first_convolution(channels, WIDTHS[0], (3,) * dimensions), NORMS[dimensions](WIDTHS[0])
        ),
        nn.ReLU(),
        *stages,
        nn.AdaptiveAvgPool2d(1) if dimensions == 2 else nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], classes),
    )
