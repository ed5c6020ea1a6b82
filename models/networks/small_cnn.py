"""The smallest network: two convolutions and two linear layers."""

from torch import nn

WIDTHS = (16, 32)
GRID = 7
HIDDEN = 64


def small_cnn(classes: int, channels: int) -> nn.Module:
    """Return the network; the pooling to a fixed grid lets it take any height and width of at least 4.

    It has neither batch statistics nor dropout, so training does not depend on the number of workers.
    """
    first, second = WIDTHS
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(GRID),
        nn.Flatten(),
        nn.Linear(second * GRID * GRID, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, classes),
    )
