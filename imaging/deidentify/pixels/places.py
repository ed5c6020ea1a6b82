"""Owns where in a frame text may stand: a screen over all of it, and a glance at each place that the screen suspects.

Both are small networks of our own. The screen sees every frame, for a millisecond or two, and suspects too much; the
glance, sharper and slower, sees the few places that are left and lets nearly all of them pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.deidentify.pixels.networks import glance_scores, screen_scores
from imaging.deidentify.pixels.pictures import leveled

CELL = 8
"""Pixels along a side of what one score stands for."""
SUSPICIOUS, UNCLEAR, SURE = -2.5, 0.75, 1.75
"""The least score of the screen that is glanced at; of the glance, what is looked at, and what is text whether it can
be read or not. Set on the patients and the fonts that the networks were trained on."""
CLEAR = 0.0
"""What scores less at first sight is not glanced at from the other three sides."""
TILE, OVERLAP = 1024, 64
"""Large frames are screened in parts, for memory."""
SIDE = 96
"""Pixels along the side of a glance; nothing inside it is glanced at again. Smaller frames are made larger."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a frame, in pixels; `bottom` and `right` lie outside."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Place:
    """A place that may be text: its middle, and the part that is text for sure, if any."""

    row: int
    column: int
    sure: Region | None


def places(grey: NDArray[np.float32], *, thorough: bool = False) -> Iterator[Place]:
    """Yield the places of a grey frame at which to look, the worst first; a thorough search trusts no glance."""
    picture = _at_least(leveled(grey), SIDE)
    for row, column in suspected(screened(picture), SUSPICIOUS):
        top = max(min(row - SIDE // 2, picture.shape[0] - SIDE), 0)
        left = max(min(column - SIDE // 2, picture.shape[1] - SIDE), 0)
        part = picture[top : top + SIDE, left : left + SIDE]
        scores = glance_scores(part)
        score = _from_all_sides(part, float(scores.max()))
        if thorough or score >= UNCLEAR:
            sure = _region(scores, top, left, grey.shape) if score >= SURE else None
            yield Place(row, column, sure)


def screened(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores of all cells of a picture that `leveled` made, (rows / 8, columns / 8) rounded up."""
    rows, columns = picture.shape
    scores = np.full((-(-rows // CELL), -(-columns // CELL)), -np.inf, np.float32)
    step = TILE - OVERLAP
    for top in range(0, max(rows - OVERLAP, 1), step):
        for left in range(0, max(columns - OVERLAP, 1), step):
            found = screen_scores(picture[top : top + TILE, left : left + TILE])
            place = np.s_[
                top // CELL : top // CELL + found.shape[0], left // CELL : left // CELL + found.shape[1]
            ]
            scores[place] = np.maximum(scores[place], found)
    return scores


def suspected(scores: NDArray[np.float32], least: float) -> Iterator[tuple[int, int]]:
    """Yield (row, column), in pixels, of the greatest scores, no two in one glance; `scores` are used up."""
    around = SIDE // CELL // 2
    while True:
        row, column = divmod(int(scores.argmax()), scores.shape[1])
        if scores[row, column] < least:
            return
        yield row * CELL + CELL // 2, column * CELL + CELL // 2
        rows = np.s_[max(row - around, 0) : row + around + 1]
        scores[rows, max(column - around, 0) : column + around + 1] = -np.inf


def _from_all_sides(part: NDArray[np.float32], first: float) -> float:
    """Return the mean score of the four ways to turn a part: text stays text, other things seldom look it."""
    if first < CLEAR:
        return first
    turned = [np.ascontiguousarray(np.rot90(part, turn)) for turn in (1, 2, 3)]
    return float(np.mean([first, *(glance_scores(one).max() for one in turned)]))


def _region(scores: NDArray[np.float32], top: int, left: int, shape: tuple[int, ...]) -> Region:
    """Return the part of a frame that scores like text."""
    rows, columns = np.nonzero(scores >= CLEAR)
    return Region(
        top + int(rows.min()) * CELL,
        left + int(columns.min()) * CELL,
        min(top + int(rows.max() + 1) * CELL, shape[0]),
        min(left + int(columns.max() + 1) * CELL, shape[1]),
    )


def _at_least(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    below, right = (max(side - length, 0) for length in picture.shape)
    if not below and not right:
        return picture
    return np.asarray(cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE), np.float32)
