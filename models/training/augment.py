"""Random variation of training images: first every parameter is drawn, then it is applied purely."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor
from torch.nn import functional

from models.config import AugmentConfig

BRIGHTEST = 255.0


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

    def __getitem__(self, part: slice) -> "Variation":
        return Variation(**{field.name: getattr(self, field.name)[part] for field in fields(self)})

    def to(self, device: torch.device) -> "Variation":
        """Return the same parameters on a device."""
        return Variation(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def draw(config: AugmentConfig, count: int, generator: Generator) -> Variation:
    """Draw the parameters of a global batch; a worker takes its slice, so its number changes nothing."""

    def even(bound: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * bound

    flipped = torch.rand(count, generator=generator) < (0.5 if config.flip else 0.0)
    return Variation(
        mirror=torch.where(flipped, -1.0, 1.0),
        angle_rad=even(math.radians(config.rotate_deg)),
        scale=1 + even(config.scale),
        shift_x=even(2 * config.shift_fraction),
        shift_y=even(2 * config.shift_fraction),
        contrast=1 + even(config.contrast),
        brightness=even(config.brightness * BRIGHTEST),
    )


def apply(levels: Tensor, variation: Variation) -> Tensor:
    """Return varied images (n, 1, size, size) of grey levels; from outside the image its edge is moved in.

    Black instead would teach the network a border that images at prediction do not have."""
    moved = _move(levels, variation)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness = (value.view(-1, 1, 1, 1) for value in (variation.contrast, variation.brightness))
    return ((moved - mean) * contrast + mean + brightness).clamp(0, BRIGHTEST)


def _move(levels: Tensor, variation: Variation) -> Tensor:
    """Mirror, rotate, scale and shift by bilinear sampling, in float32."""
    cosine, sine = variation.angle_rad.cos() / variation.scale, variation.angle_rad.sin() / variation.scale
    rows = [
        cosine * variation.mirror,
        -sine,
        variation.shift_x,
        sine * variation.mirror,
        cosine,
        variation.shift_y,
    ]
    matrices = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(matrices, list(levels.shape), align_corners=False)
    return functional.grid_sample(levels, grid, padding_mode="border", align_corners=False)
