"""Examples with masks in memory: bright discs or balls on a dark ground, and a network of one convolution."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class MaskArrays:
    """Images (n, [slices,] size, size) and masks of the same shape, in memory."""

    images: NDArray[np.uint8]
    drawn: NDArray[np.uint8]
    patient_keys: NDArray[np.str_]
    unknown_classes: NDArray[np.bool_]
    spacings_mm: NDArray[np.float64]
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    findings: NDArray[np.int8] = field(default_factory=lambda: np.empty((0, 0), np.int8))

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.images[index]

    def masks(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.drawn[index]


def discs(
    count: int = 6,
    shape: Sequence[int] = (16, 16),
    classes: int = 1,
    seed: int = 0,
    spacing_mm: Sequence[float] = (2.0, 1.0, 1.0),
) -> MaskArrays:
    """Return images with a disc (a ball) of each class, the brighter the higher its number, in noise."""
    draw = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    masks = np.zeros((count, *shape), np.uint8)
    for mask in masks:
        for number in range(1, classes + 1):
            center, radius = draw.uniform(0.25, 0.75, len(shape)), draw.uniform(0.15, 0.3)
            mask[np.linalg.norm(axes / np.array(shape) - center, axis=-1) < radius] = number
    images = 40 + masks * (180 // classes) + draw.integers(0, 20, masks.shape)
    return MaskArrays(
        images=images.astype(np.uint8),
        drawn=masks,
        patient_keys=np.array([f"p{n // 2}" for n in range(count)]),
        unknown_classes=np.zeros((count, classes), bool),
        spacings_mm=np.tile(np.array(spacing_mm, np.float64), (count, 1)),
    )


class PixelLogits(nn.Module):
    """Two convolutions at each pixel; of volumes the slices are (n, slices, height, width)."""

    def __init__(self, outputs: int, volumes: bool = False) -> None:
        super().__init__()
        self.volumes = volumes
        convolution = nn.Conv3d if volumes else nn.Conv2d
        self.layers = nn.Sequential(convolution(1, 8, 1), nn.ReLU(), convolution(8, outputs, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(image.unsqueeze(1) if self.volumes else image)}
