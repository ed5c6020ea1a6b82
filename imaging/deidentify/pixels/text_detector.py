"""Search for text in one frame: networks of rapidocr read around each candidate that our own networks find.

Most frames have no candidate. One network finds lines of text in a crop of the frame, another reads them: a line that
reads as two characters or more is text, whatever it says.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.deidentify.pixels.renderings import embossed, greys
from imaging.deidentify.pixels.text_candidates import OVERLAP, Candidate, Region, find_candidates
from imaging.deidentify.pixels.text_networks import read_line, text_map

LARGE = 768
"""Shorter side above which a frame is searched at half size too, where large letters look small."""
CROPS = ((96, 2.0, 9), (192, 1.0, 21))
"""Of each crop around a candidate: its side in pixels, its enlargement, and the width of the background taken off."""
LIKELY, LINE = 0.3, 0.5
"""The least likelihood of a pixel, and of all pixels of a line; rapidocr's own numbers."""
HEIGHT_PX, LENGTH_PX = (3, 60), 7
CHARACTERS = 1.9
"""The least sum of how sure the letters and digits of a line are: one alone is a side marker, or a vessel."""


def find_text(frame: NDArray[Any], *, thorough: bool = False) -> Iterator[Region]:
    """Yield the regions of text in a frame of stored values, (rows, columns) or (rows, columns, 3).

    A thorough search covers all of the frame, and a line counts even where it cannot be read. To learn whether there is
    any text, take the first region: the search goes on only when the next one is asked for.
    """
    for grey in greys(frame):
        yield from _text_in(grey, thorough=thorough)


def _text_in(grey: NDArray[np.float32], *, thorough: bool) -> Iterator[Region]:
    factor = 1
    while True:
        for candidate in find_candidates(grey, thorough=thorough):
            yield from (scaled_region(region, factor) for region in read_candidate(grey, candidate))
        if thorough:
            yield from (scaled_region(region, factor) for region in _lines_of_all(grey))
        if min(grey.shape) <= LARGE:
            return
        smaller = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        grey, factor = np.asarray(smaller, np.float32), factor * 2


def scaled_region(region: Region, factor: int) -> Region:
    """Return a region of a frame that is `factor` times as large.

    >>> scaled_region(Region(1, 2, 3, 4), 2)
    Region(top=2, left=4, bottom=6, right=8)
    """
    return Region(region.top * factor, region.left * factor, region.bottom * factor, region.right * factor)


def read_candidate(grey: NDArray[np.float32], candidate: Candidate) -> Iterator[Region]:
    """Yield the lines of text that can be read around a candidate of a grey frame, or its certain region."""
    nothing_read = True
    for side, enlarged, across in CROPS:
        top = max(min(candidate.row - side // 2, grey.shape[0] - side), 0)
        left = max(min(candidate.column - side // 2, grey.shape[1] - side), 0)
        picture = _enlarged(embossed(grey[top : top + side, left : left + side], across), enlarged)
        for box in text_lines(picture, enlarged):
            if reads_as_text(_cut(picture, box)):
                nothing_read = False
                yield _region(cv2.boxPoints(box) / enlarged + (left, top), grey.shape)
    if nothing_read and candidate.certain_region:
        yield candidate.certain_region


def _lines_of_all(grey: NDArray[np.float32]) -> Iterator[Region]:
    """Yield all regions of a grey frame that look like a line of text."""
    for side, enlarged, across in CROPS:
        tile = side * 4
        for top in range(0, max(grey.shape[0] - OVERLAP, 1), tile - OVERLAP):
            for left in range(0, max(grey.shape[1] - OVERLAP, 1), tile - OVERLAP):
                picture = _enlarged(embossed(grey[top : top + tile, left : left + tile], across), enlarged)
                for box in text_lines(picture, enlarged):
                    yield _region(cv2.boxPoints(box) / enlarged + (left, top), grey.shape)


def _enlarged(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    larger = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, np.uint8)


def text_lines(picture: NDArray[np.uint8], enlarged: float = 1.0) -> Iterator[Any]:
    """Yield rectangles as cv2 has them, ((x, y), (length, height), degrees), of what may be lines of text."""
    likely = text_map(picture)
    mask = (likely > LIKELY).astype(np.uint8)
    for contour in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        middle, (length, height), degrees = cv2.minAreaRect(contour)
        if height > length:
            length, height, degrees = height, length, degrees + 90
        fits = HEIGHT_PX[0] <= height / enlarged <= HEIGHT_PX[1] and length / enlarged >= LENGTH_PX
        if fits and _mean_inside(likely, contour) >= LINE:
            # The network marks only the core of a line.
            yield middle, (length + 0.9 * height, 1.9 * height), degrees


def reads_as_text(line: NDArray[np.uint8]) -> bool:
    """Tell whether a picture of a line reads as text, either way up, bright or dark."""
    for picture in (line, 255 - line):
        for way in (picture, picture[::-1, ::-1]):
            characters, sure = read_line(way)
            if (
                sum(float(s) for c, s in zip(characters, sure, strict=True) if c.isalnum() and s > 0.5)
                >= CHARACTERS
            ):
                return True
    return False


def _mean_inside(likely: NDArray[np.float32], contour: Any) -> float:
    x, y, width, height = cv2.boundingRect(contour)
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [contour - (x, y)], 1)
    return float(cv2.mean(likely[y : y + height, x : x + width], inside)[0])


def _cut(picture: NDArray[np.uint8], box: Any) -> NDArray[np.uint8]:
    """Return what lies in a slanted rectangle, made level."""
    (x, y), (length, height), degrees = box
    matrix = cv2.getRotationMatrix2D((x, y), degrees, 1)
    matrix[:, 2] += length / 2 - x, height / 2 - y
    cut = cv2.warpAffine(picture, matrix, (int(length), int(height)), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cut, np.uint8)


def _region(corners: NDArray[Any], shape: tuple[int, ...]) -> Region:
    left, top = np.floor(corners.min(0)).astype(int)
    right, bottom = np.ceil(corners.max(0)).astype(int) + 1
    return Region(max(int(top), 0), max(int(left), 0), min(int(bottom), shape[0]), min(int(right), shape[1]))
