"""Owns the search for text in one frame: a closer look at each place where networks of ours suspect some.

Most frames have no such place. A look lets rapidocr's network find lines of text in a part of the frame, and another
read them: what reads as two characters or more is text, whatever it says.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.deidentify.pixels.networks import read_line, text_map
from imaging.deidentify.pixels.pictures import as_grey, embossed
from imaging.deidentify.pixels.places import OVERLAP, Place, Region, places

LARGE = 768
"""Frames whose shorter side is longer are also seen at half size, where large letters look small."""
LOOKS = ((96, 2.0, 9), (192, 1.0, 21))
"""Of each look: pixels along its side, how much it is enlarged, and the surroundings that letters stand out from."""
LIKELY, LINE = 0.3, 0.5
"""The least likelihood of a pixel, and of all pixels of a line; rapidocr's own numbers."""
HEIGHT_PX, LENGTH_PX = (3, 60), 7
CHARACTERS = 1.9
"""The least sum of how sure the letters and digits of a line are: one alone is a side marker, or a vessel."""


def find_text(frame: NDArray[Any], *, thorough: bool = False) -> Iterator[Region]:
    """Yield where text stands in a frame of stored values, (rows, columns) or (rows, columns, 3).

    A thorough search looks at all of the frame and takes for text what cannot be read, too. Whoever only asks whether
    there is any takes the first: the search goes on only when the next one is asked for.
    """
    grey, factor = as_grey(frame), 1
    while True:
        for place in places(grey, thorough=thorough):
            yield from (scaled(region, factor) for region in look(grey, place))
        if thorough:
            yield from (scaled(region, factor) for region in _lines_of_all(grey))
        if min(grey.shape) <= LARGE:
            return
        smaller = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        grey, factor = np.asarray(smaller, np.float32), factor * 2


def scaled(region: Region, factor: int) -> Region:
    """Return a region of a frame that is `factor` times as large.

    >>> scaled(Region(1, 2, 3, 4), 2)
    Region(top=2, left=4, bottom=6, right=8)
    """
    return Region(region.top * factor, region.left * factor, region.bottom * factor, region.right * factor)


def look(grey: NDArray[np.float32], place: Place) -> Iterator[Region]:
    """Yield the lines of text that can be read around a place of a grey frame, or what is text for sure."""
    none = True
    for side, enlarged, across in LOOKS:
        top = max(min(place.row - side // 2, grey.shape[0] - side), 0)
        left = max(min(place.column - side // 2, grey.shape[1] - side), 0)
        picture = _enlarged(embossed(grey[top : top + side, left : left + side], across), enlarged)
        for box in lines(picture, enlarged):
            if is_read(_cut(picture, box)):
                none = False
                yield _region(cv2.boxPoints(box) / enlarged + (left, top), grey.shape)
    if none and place.sure:
        yield place.sure


def _lines_of_all(grey: NDArray[np.float32]) -> Iterator[Region]:
    """Yield whatever looks like a line of text, all over a grey frame."""
    for side, enlarged, across in LOOKS:
        tile = side * 4
        for top in range(0, max(grey.shape[0] - OVERLAP, 1), tile - OVERLAP):
            for left in range(0, max(grey.shape[1] - OVERLAP, 1), tile - OVERLAP):
                picture = _enlarged(embossed(grey[top : top + tile, left : left + tile], across), enlarged)
                for box in lines(picture, enlarged):
                    yield _region(cv2.boxPoints(box) / enlarged + (left, top), grey.shape)


def _enlarged(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    larger = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, np.uint8)


def lines(picture: NDArray[np.uint8], enlarged: float = 1.0) -> Iterator[Any]:
    """Yield rectangles as cv2 has them, ((x, y), (length, height), degrees), of what may be lines of text."""
    likely = text_map(picture)
    mask = (likely > LIKELY).astype(np.uint8)
    for contour in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        middle, (length, height), degrees = cv2.minAreaRect(contour)
        if height > length:
            length, height, degrees = height, length, degrees + 90
        fits = HEIGHT_PX[0] <= height / enlarged <= HEIGHT_PX[1] and length / enlarged >= LENGTH_PX
        if fits and _mean_inside(likely, contour) >= LINE:
            # The network marks the core of a line.
            yield middle, (length + 0.9 * height, 1.9 * height), degrees


def is_read(line: NDArray[np.uint8]) -> bool:
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
