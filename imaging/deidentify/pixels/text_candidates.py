"""Candidates for text in a frame: a screen over all of it, then a check of the patch around each suspected point.

Both are small networks of our own. The screen sees every frame, for a millisecond or two, and suspects too much; the
patch check, sharper and slower, sees the few points that are left and clears nearly all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.deidentify.pixels.renderings import leveled
from imaging.deidentify.pixels.text_networks import PATCH_CHECK, SCREEN, cell_logits

CELL = 8
"""Pixels along a side of the square that one score is for."""
SUSPICIOUS, UNCLEAR, SURE = -2.5, 0.75, 1.75
"""Least score of the screen at which a patch is checked; least scores of the patch check at which the text is read, and
at which it is text whether it can be read or not. Set on the patients and fonts that the networks were trained on."""
CLEAR = 0.0
"""Score of the patch as it is, below which it is not turned and checked again."""
TILE, OVERLAP = 1024, 64
"""Side and overlap of the parts in which large frames are screened, for memory."""
SIDE = 96
"""Pixels along the side of a patch; no two patches are centred inside one another. Smaller frames are padded."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a frame, in pixels; `bottom` and `right` lie outside."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point that may be in text, and the region around it that is text for certain, if any."""

    row: int
    column: int
    certain_region: Region | None


def find_candidates(grey: NDArray[np.float32], *, thorough: bool = False) -> Iterator[Candidate]:
    """Yield the points of a grey frame at which to read, the most suspicious first; thorough: no patch is cleared."""
    picture = _at_least(leveled(grey), SIDE)
    # Cells of the border around a small frame are no part of it.
    inside = np.s_[: -(-grey.shape[0] // CELL), : -(-grey.shape[1] // CELL)]
    for row, column in suspected(cell_scores(picture)[inside], SUSPICIOUS):
        top = max(min(row - SIDE // 2, picture.shape[0] - SIDE), 0)
        left = max(min(column - SIDE // 2, picture.shape[1] - SIDE), 0)
        patch = picture[top : top + SIDE, left : left + SIDE]
        scores = cell_logits(PATCH_CHECK, patch)[inside]
        score = _from_all_sides(patch, float(scores.max()))
        if thorough or score >= UNCLEAR:
            certain_region = _region(scores, top, left, grey.shape) if score >= SURE else None
            yield Candidate(row, column, certain_region)


def cell_scores(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores of all cells of a picture that `leveled` made, (rows / 8, columns / 8) rounded up."""
    rows, columns = picture.shape
    scores = np.full((-(-rows // CELL), -(-columns // CELL)), -np.inf, np.float32)
    step = TILE - OVERLAP
    for top in range(0, max(rows - OVERLAP, 1), step):
        for left in range(0, max(columns - OVERLAP, 1), step):
            tile = cell_logits(SCREEN, picture[top : top + TILE, left : left + TILE])
            cells = np.s_[
                top // CELL : top // CELL + tile.shape[0], left // CELL : left // CELL + tile.shape[1]
            ]
            scores[cells] = np.maximum(scores[cells], tile)
    return scores


def suspected(scores: NDArray[np.float32], least: float) -> Iterator[tuple[int, int]]:
    """Yield (row, column), in pixels, of the greatest scores, no two in one patch; `scores` are overwritten."""
    around = SIDE // CELL // 2
    while True:
        row, column = divmod(int(scores.argmax()), scores.shape[1])
        if scores[row, column] < least:
            return
        yield row * CELL + CELL // 2, column * CELL + CELL // 2
        rows = np.s_[max(row - around, 0) : row + around + 1]
        scores[rows, max(column - around, 0) : column + around + 1] = -np.inf


def _from_all_sides(patch: NDArray[np.float32], first: float) -> float:
    """Return the mean score of a patch in its four quarter turns: text stays text, other things seldom do."""
    if first < CLEAR:
        return first
    turned = [np.ascontiguousarray(np.rot90(patch, turn)) for turn in (1, 2, 3)]
    return float(np.mean([first, *(cell_logits(PATCH_CHECK, one).max() for one in turned)]))


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
