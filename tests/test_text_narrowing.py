"""A network of text detection is made narrower by the channels that nobody reads."""

import torch
from torch import nn

from bench.text_narrowing import narrowed


def network(first: int, second: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, first, 3, bias=False), nn.BatchNorm2d(first), nn.ReLU()),
        *(nn.Conv2d(first, first, 3, groups=first), nn.Conv2d(first, second, 1), nn.ReLU()),
        nn.Conv2d(second, 1, 1),
    ).eval()


def test_channels_that_nobody_reads_are_cut_and_nothing_else() -> None:
    torch.manual_seed(4)
    wide, narrow = network(6, 5), network(3, 2)
    with torch.no_grad():
        wide[4].weight[:, [0, 2, 5]] = 0
        wide[6].weight[:, [1, 3, 4]] = 0
    pictures = torch.rand(4, 1, 12, 12)
    narrow.load_state_dict(narrowed(narrow, wide.state_dict(), pictures))
    assert torch.allclose(narrow(pictures), wide(pictures), atol=1e-6)


def test_a_network_of_the_same_width_stays_as_it_is() -> None:
    wide, pictures = network(3, 2), torch.rand(2, 1, 12, 12)
    kept = narrowed(network(3, 2), wide.state_dict(), pictures)
    assert all(torch.equal(value, kept[name]) for name, value in wide.state_dict().items())
