"""The table of networks, by the names that a person may choose."""

from collections.abc import Callable

from torch import nn

from imaging.errors import UserFault
from models.networks.residual import residual_small
from models.networks.small_cnn import small_cnn
from models.networks.small_stems import mobilenet_v3_small, resnet18

Builder = Callable[[int, int], nn.Module]
"""Takes the numbers of classes and of channels; maps float (n, channels, height, width) to logits (n, classes)."""

NETWORKS: dict[str, Builder] = {
    "small_cnn": small_cnn,
    "residual_small": residual_small,
    "resnet18": resnet18,
    "mobilenet_v3_small": mobilenet_v3_small,
}


def build(name: str, classes: int, channels: int = 1) -> nn.Module:
    """Return the named network with fresh weights, drawn from torch's global generator.

    An image has one channel; the slices of a volume are its channels.

    Raises UserFault if the table does not have the name.

    >>> sum(p.numel() for p in build("small_cnn", 2).parameters())
    105346
    """
    if name not in NETWORKS:
        raise UserFault(f"no network is called {name!r}: choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](classes, channels)
