"""Random variation of training images: first every parameter is drawn, then it is applied purely."""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from models.config import AugmentConfig

BRIGHTEST = 255.0
UNKNOWN = 255
"""Class number of a pixel of which a mask says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """The drawn parameters of a batch, one value an image, each of shape (n,)."""

    mirror: Tensor
    """-1 mirrors left to right, 1 does not."""
    angle_rad: Tensor
    scale: Tensor
    shift_x: Tensor
    shift_y: Tensor
    """Shifts in units of half the image's side."""
    contrast: Tensor
    brightness: Tensor
    """In grey levels."""

    def __getitem__(self, part: slice | NDArray[np.int64]) -> "Variation":
        return Variation(**{field.name: getattr(self, field.name)[part] for field in fields(self)})

    def to(self, device: torch.device) -> "Variation":
        """Return the same parameters on a device."""
        return Variation(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def draw(config: AugmentConfig, count: int, generator: Generator) -> Variation:
    """Draw the parameters of a global batch; a worker takes its slice, so its number changes nothing."""

    def even(bound: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * bound

    flipped = torch.rand(count, generator=generator) < (0.5 if config.flip else 0.0)
    mirror, angle_rad = torch.where(flipped, -1.0, 1.0), even(math.radians(config.rotate_deg))
    drawn = Variation(
        mirror=mirror,
        angle_rad=angle_rad,
        scale=1 + even(config.scale),
        shift_x=even(2 * config.shift_fraction),
        shift_y=even(2 * config.shift_fraction),
        contrast=1 + even(config.contrast),
        brightness=even(config.brightness * BRIGHTEST),
    )
    if not config.flip_vertical:
        return drawn
    # Mirrored top to bottom is mirrored left to right and turned by half.
    turned = torch.rand(count, generator=generator) < 0.5
    return replace(
        drawn,
        mirror=torch.where(turned, -mirror, mirror),
        angle_rad=torch.where(turned, angle_rad + math.pi, angle_rad),
    )


def draw_mixup(alpha: float, count: int, seed: int) -> tuple[float, NDArray[np.int64]]:
    """Draw the share that the images of a global batch keep, and the place of each one's partner (count,).

    Zhang et al. 2018, https://arxiv.org/abs/1710.09412, with one share a batch, as in the code of its authors.
    """
    drawn = np.random.default_rng(seed)
    return float(drawn.beta(alpha, alpha)), drawn.permutation(count)


def apply(levels: Tensor, variation: Variation) -> Tensor:
    """Return varied images (n, channels, [slices,] rows, columns) of grey levels; all slices are moved alike.

    From outside the image its edge is moved in: black would teach the network a border that images at prediction do
    not have.
    """
    moved = _moved(levels, variation, "bilinear", "border")
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness = (value.view(-1, 1, 1, 1) for value in (variation.contrast, variation.brightness))
    return ((moved - mean) * contrast + mean + brightness).clamp(0, BRIGHTEST).reshape(levels.shape)


def apply_to_mask(masks: Tensor, variation: Variation) -> Tensor:
    """Return class numbers uint8 (n, [slices,] rows, columns), moved as their images are; UNKNOWN from outside."""
    # Sampling brings in 0 from outside, so that every class is one higher on its way.
    moved = _moved(
        masks.reshape(len(masks), -1, *masks.shape[-2:]).float() + 1, variation, "nearest", "zeros"
    )
    return (moved.to(torch.int16) - 1).to(torch.uint8).reshape(masks.shape)


def _moved(values: Tensor, variation: Variation, mode: str, outside: str) -> Tensor:
    """Mirror, rotate, scale and shift (n, ..., rows, columns) in float32; return (n, planes, rows, columns)."""
    planes = values.reshape(len(values), -1, *values.shape[-2:])
    tall = planes.shape[2] / planes.shape[3]
    cosine, sine = variation.angle_rad.cos() / variation.scale, variation.angle_rad.sin() / variation.scale
    # Coordinates reach from -1 to 1 over rows and columns alike, however many there are of each.
    rows = [
        cosine * variation.mirror,
        -sine * tall,
        variation.shift_x,
        sine * variation.mirror / tall,
        cosine,
        variation.shift_y,
    ]
    matrices = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(matrices, list(planes.shape), align_corners=False)
    return functional.grid_sample(planes, grid, mode, padding_mode=outside, align_corners=False)
