"""Parts of images with and without burned-in text, which the networks of `bench.text_training` learn from."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from bench.overlays import burn, patients_apart
from imaging.deidentify.pixels.renderings import leveled
from imaging.deidentify.pixels.text_candidates import CELL, SIDE, suspected
from imaging.deidentify.pixels.text_networks import SCREEN, cell_logits
from imaging.phantom.anatomy import paint, sample_chest

SCREEN_SIDE = 256
SUSPECTED, DOUBTED = -3.5, -4.5
"""The least score of the screen at which the patch check sees a place with text near it, and one without."""
PHANTOM, RADIOGRAPH = 0.12, 0.08
"""Shares of the images that the patch check learns from; all others are slices of ct-contrast."""
JITTER_PX = 6

Crop = tuple[NDArray[np.float16], NDArray[np.bool_], NDArray[np.bool_]]
"""A picture, which cells hold text, and which cells count."""


class Images:
    """Images to learn from: the slices of ct-contrast's training patients, phantoms, PneumoniaMNIST's training part."""

    def __init__(self, folder: Path) -> None:
        self.slices = [dcmread(path).pixel_array.astype(np.int16) for path in patients_apart(folder)[0]]
        with np.load(folder / "pneumoniamnist.npz") as arrays:
            self.radiographs = arrays["train_images"][::4]

    def slice(self, random: np.random.Generator) -> NDArray[np.int16]:
        """Return one of the slices."""
        return self.slices[random.integers(len(self.slices))]

    def any(self, random: np.random.Generator) -> NDArray[np.int16]:
        """Return an image of any kind."""
        share = random.random()
        if share < PHANTOM:
            hu = paint(sample_chest(random, lesion=bool(random.random() < 0.5)), 512, random)[0]
            return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
        if share < PHANTOM + RADIOGRAPH:
            small = self.radiographs[random.integers(len(self.radiographs))].astype(np.float32)
            way = int(random.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC)))
            large = cv2.resize(small * random.uniform(2, 10), (512, 512), interpolation=way)
            return np.rint(large).astype(np.int16)
        return self.slice(random)


def varied(random: np.random.Generator, image: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return an image turned, windowed, inverted, resized and noisy, as other devices and programs make them."""
    made = np.rot90(image.astype(np.float32), random.integers(4))[:, :: random.choice((-1, 1))]
    if random.random() < 0.2:
        low, high = sorted(np.percentile(made[::3, ::3], random.uniform((0, 60), (50, 100))))
        made = np.clip(made, low, max(high, low + 50))
    if random.random() < 0.4:
        made = made.max() + made.min() - made
    if random.random() < 0.3:
        by = random.uniform(0.7, 1.6)
        way = cv2.INTER_LINEAR if by > 1 else cv2.INTER_AREA
        made = cv2.resize(np.ascontiguousarray(made), None, fx=by, fy=by, interpolation=way)
    if random.random() < 0.3:
        made = made + random.normal(0, random.uniform(5, 60), made.shape)
    return np.rint(np.clip(made, -2048, 4095)).astype(np.int16)


def cells(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which cells hold text, and which count: those at its edge do not."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    blocks = (len(mask) // CELL, CELL, len(mask) // CELL, CELL)
    near = cv2.dilate(closed, np.ones((9, 9), np.uint8)).reshape(blocks).max((1, 3)) > 0
    text = closed.reshape(blocks).mean((1, 3)) > 0.35
    return text, (text | ~near if mask.sum() >= 40 else ~near)


def part(picture: NDArray[np.float32], mask: NDArray[np.bool_], place: tuple[slice, slice]) -> Crop:
    """Return a part of a picture and what its cells hold."""
    return picture[place].astype(np.float16), *cells(mask[place])


def screen_crops(random: np.random.Generator, images: Images) -> Iterator[Crop]:
    """Yield parts of 256 x 256 pixels of one image, with and without text."""
    image = varied(random, images.slice(random))
    if min(image.shape) < SCREEN_SIDE:
        return
    for _ in range(3):
        overlay = burn(random, image, 13)
        inked = np.argwhere(overlay.mask)
        picture = leveled(overlay.stored.astype(np.float32))
        for _ in range(2 if len(inked) else 0):
            corner = inked[random.integers(len(inked))] - random.integers(SCREEN_SIDE, size=2)
            top, left = np.clip(corner, 0, np.subtract(image.shape, SCREEN_SIDE))
            yield part(picture, overlay.mask, np.s_[top : top + SCREEN_SIDE, left : left + SCREEN_SIDE])
    picture, nothing = leveled(image.astype(np.float32)), np.zeros(image.shape, bool)
    for _ in range(3):
        top, left = random.integers(np.subtract(image.shape, SCREEN_SIDE) + 1)
        yield part(picture, nothing, np.s_[top : top + SCREEN_SIDE, left : left + SCREEN_SIDE])


def patch_crops(random: np.random.Generator, images: Images) -> Iterator[Crop]:
    """Yield parts of 96 x 96 pixels of one image: mostly where the screen looks, with and without text."""
    image = varied(random, images.any(random))
    if min(image.shape) < 2 * SIDE:
        return
    for _ in range(3):
        overlay = burn(random, image, 13)
        picture = leveled(overlay.stored.astype(np.float32))
        near = cv2.dilate(overlay.mask.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        met = 0
        for row, column in islice(suspected(cell_logits(SCREEN, picture), SUSPECTED), 4):
            on_text = near[min(row, near.shape[0] - 1), min(column, near.shape[1] - 1)]
            if on_text or random.random() < 0.5:
                met += on_text
                yield part(picture, overlay.mask, around(random, picture, row, column, JITTER_PX))
        inked = np.argwhere(overlay.mask)
        for _ in range(1 if met else 2):
            row, column = inked[random.integers(len(inked))]
            yield part(picture, overlay.mask, around(random, picture, row, column, 30))
    picture, nothing = leveled(image.astype(np.float32)), np.zeros(image.shape, bool)
    anywhere = tuple(random.integers(image.shape))
    for row, column in (*islice(suspected(cell_logits(SCREEN, picture), DOUBTED), 8), anywhere):
        yield part(picture, nothing, around(random, picture, row, column, JITTER_PX))


def around(
    random: np.random.Generator, picture: NDArray[np.float32], row: int, column: int, jitter_px: int
) -> tuple[slice, slice]:
    """Return a part of 96 x 96 pixels about a place, not quite in its middle."""
    down, right = random.integers(-jitter_px, jitter_px + 1, 2)
    top = min(max(row + down - SIDE // 2, 0), picture.shape[0] - SIDE)
    left = min(max(column + right - SIDE // 2, 0), picture.shape[1] - SIDE)
    return np.s_[top : top + SIDE, left : left + SIDE]
