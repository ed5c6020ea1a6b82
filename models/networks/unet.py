"""U-Net with a residual encoder and deep supervision, for masks of images and of volumes.

Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), with the encoder and the supervision of every scale that
Isensee et al. 2021 and 2024 recommend (https://doi.org/10.1038/s41592-020-01008-z, https://arxiv.org/abs/2404.09556).
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.layers import CONVOLUTIONS, first_convolution

WIDTHS = (16, 32, 64, 128, 256)
"""Channels of each scale; every scale after the first halves the image."""
SUPERVISED = 3
"""Scales that have logits while training, from the full size down; on coarser ones a finding is a pixel or two."""
GROUP = 8
"""Channels that are normalised together.

Instance normalisation fails on a scale of one pixel, and takes two to three times as long on processors."""
LEAST_SLICES = 4
"""Slices are halved only as often as so many are left: a cardiac stack has ten of them, 10 mm apart."""

TRANSPOSED: Mapping[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class VolumePooling(nn.Module):
    """Average of neighbours; the last of an odd number is averaged alone.

    With channels last torch 2.14 copies volumes to pool them, which takes fourteen times as long on processors as slice
    by slice, where slices are left alone.
    """

    def __init__(self, sides: tuple[int, ...]) -> None:
        super().__init__()
        self.sides = sides

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, channels, slices, height, width) to the shrunken one."""
        if self.sides[0] > 1 or not _channels_last(image):
            return functional.avg_pool3d(image, self.sides, ceil_mode=True, count_include_pad=False)
        flat = image.transpose(1, 2).flatten(0, 1)
        pooled = functional.avg_pool2d(flat, self.sides[1:], ceil_mode=True, count_include_pad=False)
        return pooled.unflatten(0, (image.shape[0], image.shape[2])).transpose(1, 2)


class VoxelConvolution(nn.Conv3d):
    """Convolution of each voxel alone: with channels last a product of matrices.

    With one thread torch 2.14 does it without oneDNN, which takes up to five times as long.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, inward, ...) to (n, outward, ...)."""
        if not _channels_last(image):
            return super().forward(image)
        made = functional.linear(image.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias)
        return made.permute(0, 4, 1, 2, 3)


POINTWISE: Mapping[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: VoxelConvolution}


class ResidualScale(nn.Module):
    """One scale of the encoder: two convolutions beside a shortcut, of which the first may shrink the image."""

    def __init__(self, inward: int, outward: int, stride: tuple[int, ...], kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.first = convolution(inward, outward, kernel, stride)
        self.second = convolution(outward, outward, kernel)
        self.shortcut = nn.Sequential()
        if math.prod(stride) > 1:
            # The last of an odd number of pixels is averaged alone, where a strided convolution would see it too.
            self.shortcut.append(pooling(stride))
        if inward != outward:
            self.shortcut.append(convolution(inward, outward, (1,) * len(stride)))

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, inward, ...) to (n, outward, ...), each side divided by its stride and rounded up."""
        return activated(self.second(activated(self.first(image))) + self.shortcut(image))


class Upward(nn.Module):
    """One scale of the decoder: the coarser scale is enlarged and joined with what the encoder saw of this one."""

    def __init__(self, inward: int, outward: int, stride: tuple[int, ...], kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.enlarge = TRANSPOSED[len(stride)](inward, outward, stride, stride)
        self.join = convolution(2 * outward, outward, kernel)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Map (n, inward, ...) of the coarser scale and (n, outward, ...) of this one to (n, outward, ...)."""
        enlarged = self.enlarge(coarse)
        for axis, size in enumerate(fine.shape[2:], start=2):
            # An odd side was rounded up on its way down.
            enlarged = enlarged.narrow(axis, 0, size) if enlarged.shape[axis] != size else enlarged
        return activated(self.join(torch.cat([enlarged, fine], dim=1)))


class UNet(nn.Module):
    """Network that gives each pixel, or voxel, a logit for each class.

    It returns `logits` (n, classes, [slices,] height, width) and, in training mode alone, `logits_2` and `logits_4` of
    half and a quarter of the size, where slices are halved as often as `strides_of` allows.
    """

    def __init__(self, classes: int, channels: int, strides: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.dimensions = dimensions = len(strides[0])
        finest, *coarser = kernels = kernels_of(strides)
        steps = list(zip(itertools.pairwise(WIDTHS), strides, strict=True))
        self.stem = nn.Sequential(
            first_convolution(channels, WIDTHS[0], finest),
            nn.GroupNorm(WIDTHS[0] // GROUP, WIDTHS[0]),
            nn.LeakyReLU(inplace=True),
            ResidualScale(WIDTHS[0], WIDTHS[0], (1,) * dimensions, finest),
        )
        self.downward = nn.ModuleList(
            ResidualScale(fine, coarse, stride, kernel)
            for ((fine, coarse), stride), kernel in zip(steps, coarser, strict=True)
        )
        self.upward = nn.ModuleList(
            Upward(coarse, fine, stride, kernel)
            for ((fine, coarse), stride), kernel in reversed(list(zip(steps, kernels[:-1], strict=True)))
        )
        self.heads = nn.ModuleList(POINTWISE[dimensions](width, classes, 1) for width in WIDTHS[:SUPERVISED])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map (n, channels or slices, height, width) to logits by name."""
        if _slow_alone(image, self.dimensions):
            return {name: logits[:1] for name, logits in self.forward(image.expand(2, -1, -1, -1)).items()}
        *fines, coarse = self.scales(image)
        decoded = []
        for upward, fine in zip(self.upward, reversed(fines), strict=True):
            coarse = upward(coarse, fine)
            decoded.append(coarse)
        shown = SUPERVISED if self.training else 1
        return {
            f"logits_{2**scale}" if scale else "logits": head(features)
            for scale, (head, features) in enumerate(zip(self.heads[:shown], reversed(decoded), strict=False))
        }

    def scales(self, image: Tensor) -> list[Tensor]:
        """Return what the encoder makes of an image, from the full size down."""
        scales = [self.stem(image)]
        for downward in self.downward:
            scales.append(downward(scales[-1]))
        return scales


def convolution(
    inward: int, outward: int, kernel: tuple[int, ...], stride: int | tuple[int, ...] = 1
) -> nn.Module:
    """Return a convolution and its normalisation."""
    padding = tuple(side // 2 for side in kernel)
    kinds = POINTWISE if set(kernel) == {1} and stride == 1 else CONVOLUTIONS
    return nn.Sequential(
        kinds[len(kernel)](inward, outward, kernel, stride, padding=padding, bias=False),
        nn.GroupNorm(outward // GROUP, outward),
    )


def pooling(stride: tuple[int, ...]) -> nn.Module:
    """Return the average of neighbours; the last of an odd number is averaged alone."""
    if len(stride) == 3:
        return VolumePooling(stride)
    return nn.AvgPool2d((stride[0], stride[1]), ceil_mode=True, count_include_pad=False)


def activated(values: Tensor) -> Tensor:
    """Return the activation of every layer, in place."""
    return functional.leaky_relu(values, inplace=True)


def strides_of(slices: int) -> list[tuple[int, int, int]]:
    """Return the strides from each scale of a volume to the next: the slices are halved on the coarsest ones alone.

    >>> strides_of(10)
    [(1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2)]
    """
    steps = len(WIDTHS) - 1
    halved = min(steps, max(0, int(math.log2(slices / LEAST_SLICES))))
    return [(2 if step >= steps - halved else 1, 2, 2) for step in range(steps)]


def kernels_of(strides: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the kernel of each scale: across slices only from the scale before the one that halves them.

    Volumes of few slices have thick ones, whose neighbours say little of the finest details (Isensee et al. 2021 decide
    by the spacing); three times less work at the full size.

    >>> kernels_of(strides_of(10))
    [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    """
    first = [stride[0] for stride in strides] + [2]
    flat = [len(strides[0]) == 3 and first[scale : scale + 2] == [1, 1] for scale in range(len(first))]
    return [(1 if alone else 3, *(3 for _ in strides[0][1:])) for alone in flat]


def unet(classes: int, channels: int) -> nn.Module:
    """Return the network of images, of any size from 16 px."""
    return UNet(classes, channels, [(2, 2)] * (len(WIDTHS) - 1))


def unet_3d(classes: int, slices: int) -> nn.Module:
    """Return the network of volumes of so many slices; it takes volumes of more or fewer too, as patches are."""
    return UNet(classes, 1, strides_of(slices))


def _channels_last(image: Tensor) -> bool:
    """Return whether an image is a volume on a processor whose channels are stored together; an export is of none."""
    if torch.compiler.is_exporting() or image.device.type != "cpu":
        return False
    return image.is_contiguous(memory_format=torch.channels_last_3d)


def _slow_alone(image: Tensor, dimensions: int) -> bool:
    """Return whether two volumes are faster than one.

    A batch of one volume of few slices is convolved without oneDNN, ten times as slowly (torch 2.14, processors).
    """
    if dimensions == 2 or torch.compiler.is_exporting() or image.device.type != "cpu":
        return False
    return image.shape[0] == 1
