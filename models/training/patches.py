"""Patches of training images: where they are cut, so that rare classes are met as often as frequent ones.

In a share of the images the patch holds a pixel of a class that is drawn there, each class as likely as the others,
however few pixels it has; elsewhere any place is as likely as another. First all numbers of a global batch are drawn
from seed, epoch and step; then they are applied to the masks, so that the number of workers changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imaging.errors import UserFault
from imaging.statistics.segmentation import UNKNOWN_PIXEL
from models.config import PatchConfig
from models.objectives.protocol import Arrays
from models.training.batches import seed_of

PATCHES = 2
"""Number of this draw, behind (seed, epoch, step)."""
CHOICES = 3
"""Numbers of an image before those of its axes: whether a class is met, which one, and at which of its pixels."""


def draw_patches(seed: int, epoch: int, step: int, count: int) -> NDArray[np.float64]:
    """Return the numbers (count, CHOICES + 3), from 0 to 1, that place the patches of a global batch."""
    return np.random.default_rng(seed_of(seed, epoch, step, PATCHES)).random((count, CHOICES + 3))


def cropped(
    levels: Tensor, targets: Arrays, patch: PatchConfig, drawn: NDArray[np.float64]
) -> tuple[Tensor, Arrays]:
    """Return patches of images (n, channels or slices, rows, columns), and the targets with those of the masks.

    `drawn` are the images' rows of `draw_patches`. Raises UserFault for a patch that is larger than the images, or
    examples without masks.
    """
    if "masks" not in targets:
        raise UserFault(
            "patches are cut where masks have their classes, and these examples have none: leave patch out"
        )
    masks = targets["masks"]
    shape = patch_shape(patch, masks.shape[1:])
    origins = [
        patch_origin(mask, shape, patch.class_share, one) for mask, one in zip(masks, drawn, strict=True)
    ]
    boxes = [
        tuple(slice(at, at + side) for at, side in zip(origin, shape, strict=True)) for origin in origins
    ]
    images = torch.stack([image[..., *box] for image, box in zip(levels, boxes, strict=True)])
    return images, {**targets, "masks": np.stack([mask[box] for mask, box in zip(masks, boxes, strict=True)])}


def patch_shape(patch: PatchConfig, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the patches of images of this shape; raise UserFault where it is larger."""
    plane = (patch.size_px or shape[-2], patch.size_px or shape[-1])
    sides = plane if len(shape) == 2 else (patch.slices or shape[0], *plane)
    if any(side > size for side, size in zip(sides, shape, strict=True)):
        raise UserFault(
            f"a patch of {' x '.join(map(str, sides))} is larger than the images of {' x '.join(map(str, shape))}: "
            "make it smaller, or leave it out"
        )
    return sides


def patch_origin(
    mask: NDArray[np.uint8], shape: Sequence[int], class_share: float, drawn: NDArray[Any]
) -> list[int]:
    """Return the first pixel of a patch along each axis of a mask, by numbers from 0 to 1; see `draw_patches`."""
    meets, which, where, *along = drawn
    room = [size - side for size, side in zip(mask.shape, shape, strict=True)]
    counts = np.bincount(mask.ravel(), minlength=UNKNOWN_PIXEL + 1)
    present = np.flatnonzero(counts[1:UNKNOWN_PIXEL]) + 1
    if meets >= class_share or not len(present):
        return [int(number * (one + 1)) for number, one in zip(along, room, strict=False)]
    number = present[int(which * len(present))]
    pixel = np.flatnonzero(mask.ravel() == number)[int(where * counts[number])]
    # The pixel may lie anywhere in the patch: in its middle alone the network would learn to look there.
    at = zip(np.unravel_index(pixel, mask.shape), shape, room, along, strict=False)
    return [min(max(int(middle) - int(share * side), 0), one) for middle, side, one, share in at]
