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


def is_of_volumes(network: nn.Module) -> bool:
    """Whether a network has convolutions of three dimensions."""
    return any(isinstance(layer, nn.Conv3d) for layer in network.modules())


def head_of(network: nn.Module) -> str:
    """Return the name of the part that gives the outputs: the last linear layer, or the heads of a U-Net.

    What goes into the head is the embedding of an example.
    """
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return linear[-1] if linear else "heads"


class EmbeddingHead(nn.Module):
    """Head of a network that gives what goes into it beside the logits, and the attention to it where there is one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.attention: nn.Module | None = None

    def forward(self, embedding: Tensor) -> dict[str, Tensor]:
        """Map (n, width) to the outputs by name."""
        outputs = {"logits": self.linear(embedding), "embedding": embedding}
        return outputs if self.attention is None else outputs | {"attention": self.attention(embedding)}


def with_embedding(network: nn.Module) -> int:
    """Let a network of classes give the embedding (n, width) too; return the width. Its outputs have names then."""
    head = head_of(network)
    linear = network.get_submodule(head)
    assert isinstance(linear, nn.Linear)
    network.set_submodule(head, EmbeddingHead(linear))
    return linear.in_features


def first_convolution(channels: int, outward: int, kernel: tuple[int, ...]) -> nn.Module:
    """Return the first convolution of a network, of stride 1: of images with channels or, with 3 sides, of volumes."""
    padding = tuple(side // 2 for side in kernel)
    if len(kernel) == 3:
        return StackConv3d(1, outward, kernel, padding=padding, bias=False)  # type: ignore[arg-type]
    return nn.Conv2d(channels, outward, kernel, padding=padding, bias=False)  # type: ignore[arg-type]
