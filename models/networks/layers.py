"""Layers that networks of images and of volumes share."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

CONVOLUTIONS: Mapping[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
"""By the number of dimensions."""


class StackConv3d(nn.Conv3d):
    """The first convolution of a network of volumes: a volume comes as (n, slices, height, width), like an image.

    Only that network knows that the slices are a depth and not channels; what prepares images, varies them and hands
    them over does not.
    """

    def forward(self, volumes: Tensor) -> Tensor:
        """Map (n, slices, height, width) to (n, outward, slices, height, width) over the strides."""
        return super().forward(volumes.unsqueeze(1))


def head_of(network: nn.Module) -> str:
    """Return the name of the part that gives the outputs: the last linear layer, or the heads of a U-Net.

    What goes into the head is the embedding of an example.
    """
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return linear[-1] if linear else "heads"


def first_convolution(
    dimensions: int, channels: int, outward: int, kernel: int, bias: bool = False
) -> nn.Module:
    """Return the first convolution of a network, of stride 1: of images with channels, or of volumes."""
    if dimensions == 3:
        return StackConv3d(1, outward, kernel, padding=kernel // 2, bias=bias)
    return nn.Conv2d(channels, outward, kernel, padding=kernel // 2, bias=bias)
