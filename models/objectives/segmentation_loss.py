"""Loss of masks in torch: Dice and cross entropy on every scale of the network, without what nobody knows.

In an image in which a class was not drawn, a pixel that is not one of the drawn classes may be the background or that
class. Both together have the probability of what was drawn there, "nothing else", so they are added up before the
logarithm: the marginal loss of Shi et al. 2021 (Medical Image Analysis 70, 101979). Unknown pixels count nowhere.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from imaging.statistics.segmentation import UNKNOWN_PIXEL

LOGITS = "logits"
"""The output of full size; `logits_2` is that of half the size, and so on, in training mode alone."""
SMOOTH = 1.0
"""Pixels added to both sides of Dice: a class that is in neither mask is no error, and its gradient stays finite."""


def example_losses(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Return the loss of each example (n,): the mean over the scales, in which half the size weighs half.

    `outputs` are logits (n, 1 + classes, [slices,] height, width); of `targets`, `masks` (n, [slices,] height, width)
    hold class numbers, and `unknown_classes` (n, classes) says what was not drawn.
    """
    weights = {name: 1 / int(name.partition("_")[2] or 1) for name in outputs if name.startswith(LOGITS)}
    losses = [
        weight * _losses_of_scale(outputs[name].float(), targets["masks"], targets["unknown_classes"])
        for name, weight in weights.items()
    ]
    return torch.stack(losses).sum(dim=0) / sum(weights.values())


def losses_of_probabilities(
    probabilities: NDArray[np.float32], masks: NDArray[np.uint8], unknown_classes: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the loss of each example (n,) from what the network was activated to."""
    # The softmax of logarithms of probabilities is the probabilities.
    logits = torch.from_numpy(probabilities).clamp(min=torch.finfo(torch.float32).tiny).log()
    losses = _losses_of_scale(logits, torch.from_numpy(masks), torch.from_numpy(unknown_classes))
    return np.asarray(losses.numpy(), np.float32)


def _losses_of_scale(logits: Tensor, masks: Tensor, unknown_classes: Tensor) -> Tensor:
    masks = _resized(masks, logits.shape[2:]).flatten(1).long()
    known = masks != UNKNOWN_PIXEL
    truth = masks.masked_fill(~known, 0)
    logarithms = logits.flatten(2).log_softmax(dim=1)
    entropy = _cross_entropy(logarithms, truth, unknown_classes)
    mean = (entropy * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
    return mean + _dice_loss(logarithms.exp(), truth, known, unknown_classes)


def _resized(masks: Tensor, size: torch.Size) -> Tensor:
    if masks.shape[1:] == size:
        return masks
    return functional.interpolate(masks[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0]


def _cross_entropy(logarithms: Tensor, truth: Tensor, unknown_classes: Tensor) -> Tensor:
    """Return minus the logarithm of the probability of what was drawn at each pixel (n, pixels)."""
    of_truth = logarithms.gather(1, truth[:, None])[:, 0]
    if not unknown_classes.any():
        return -of_truth
    # The background and what was not drawn, which are one to who drew.
    merged = torch.cat([torch.ones_like(unknown_classes[:, :1]), unknown_classes], dim=1)
    of_merged = logarithms.masked_fill(~merged[:, :, None], -torch.inf).logsumexp(dim=1)
    return -torch.where(merged.gather(1, truth), of_merged, of_truth)


def _dice_loss(probabilities: Tensor, truth: Tensor, known: Tensor, unknown_classes: Tensor) -> Tensor:
    """Return 1 - Dice in the mean over the classes that were drawn (n,)."""
    numbers = torch.arange(1, probabilities.shape[1], device=truth.device)
    drawn = (truth[:, None] == numbers[:, None]) & known[:, None]
    called = probabilities[:, 1:] * known[:, None]
    overlap, size = (called * drawn).sum(dim=2), called.sum(dim=2) + drawn.sum(dim=2)
    losses = 1 - (2 * overlap + SMOOTH) / (size + SMOOTH)
    return (losses * ~unknown_classes).sum(dim=1) / (~unknown_classes).sum(dim=1).clamp(min=1)
