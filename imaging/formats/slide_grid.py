"""Grid of tiles over a whole slide: the level that they are cut from, their places in it, and the pieces of reading."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from imaging.dicom.limits import check_limit
from imaging.errors import DataFault

COARSER = 1.05
"""A level that is coarser by so little is enlarged: levels of 0.2522 and 1.0088 µm are called 40x and 10x."""
SAME = 1.01
"""Levels whose resolutions differ by less are of one resolution: levels are of whole pixels."""
SAME_RESOLUTION = "several images of a slide have one resolution: optical paths, focal planes, concatenations"
"""Detail of the fault of a slide whose level cannot be chosen."""
TILE_PIXELS = 2**24
"""Most pixels of a level in one tile: 4096 x 4096 in colour are 48 MiB."""
TILES = 2**20
"""Most tiles of one slide."""
PIECE_BYTES, PIECE_PIXELS = 2**26, 2**26
"""Most bytes of tiles that a worker returns at once, and pixels of the level below them: frames at their edges are
decoded twice, JPEG 2000 at ten million pixels a second, and a worker has a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSize:
    """Size of one level in pixels, and how many micrometres lie between its rows and between its columns."""

    rows: int
    columns: int
    row_um: float
    column_um: float

    @property
    def mpp(self) -> float:
        """The coarser of its two resolutions."""
        return max(self.row_um, self.column_um)


def choose_level(levels: Sequence[LevelSize], mpp: float) -> int:
    """Return which level is the coarsest of those that are as fine as asked for.

    Raises DataFault "slide-resolution" where none is, and "unsupported" where two are of one resolution.

    >>> sizes = [LevelSize(rows=n, columns=n, row_um=um, column_um=um) for n, um in ((800, 0.25), (200, 1.01))]
    >>> choose_level(sizes, 1.0), choose_level(sizes, 0.9)
    (1, 0)
    """
    fine = [(level.mpp, number) for number, level in enumerate(levels) if level.mpp <= mpp * COARSER]
    if not fine:
        finest = min(level.mpp for level in levels)
        raise DataFault(
            "slide-resolution", f"the finest level has {finest:.4g} µm a pixel, {mpp:g} are asked for"
        )
    chosen = max(fine)
    if sum(chosen[0] <= one * SAME for one, _ in fine) > 1:
        raise DataFault("unsupported", SAME_RESOLUTION)
    return chosen[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Square tiles of `size_px` at `mpp` micrometres a pixel over a level, from its top left corner, row by row.

    The last ones go beyond the level. Tiles begin and end at whole pixels of the level, so that their resolution is off
    by less than one pixel of it in a tile.
    """

    level: LevelSize
    size_px: int
    mpp: float

    @property
    def steps(self) -> tuple[float, float]:
        """The distance of tiles in rows and in columns of the level."""
        side_um = self.size_px * self.mpp
        return side_um / self.level.row_um, side_um / self.level.column_um

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles.

        >>> TileGrid(level=LevelSize(rows=800, columns=600, row_um=0.5, column_um=0.5), size_px=64, mpp=1.0).shape
        (7, 5)
        """
        down, across = self.steps
        return math.ceil(self.level.rows / down), math.ceil(self.level.columns / across)

    @property
    def count(self) -> int:
        """The number of tiles."""
        return math.prod(self.shape)

    @property
    def pieces(self) -> int:
        """The number of pieces that the slide is read in."""
        pixels = math.prod(self.steps)
        if self.count > TILES or pixels > TILE_PIXELS:
            return 1  # which will be refused
        share = max(self.size_px**2 / PIECE_BYTES, pixels / PIECE_PIXELS)
        return min(max(1, math.ceil(self.count * share)), self.count)

    def check(self) -> None:
        """Raise DataFault "slide-resolution" where a tile has too many pixels, "too-large" for too many tiles."""
        check_limit("too-large", "the number of tiles", self.count, TILES)
        if math.prod(self.steps) > TILE_PIXELS:
            raise DataFault(
                "slide-resolution",
                f"the level has {self.level.mpp:.4g} µm a pixel, too fine for tiles of {self.size_px} pixels of "
                f"{self.mpp:g} µm: levels between are missing",
            )

    def box(self, tile: int) -> tuple[int, int, int, int]:
        """Return the first row and column of a tile in the level, and its rows and columns."""
        row, column = divmod(tile, self.shape[1])
        down, across = self.steps
        return int(row * down), int(column * across), max(1, round(down)), max(1, round(across))

    def tiles(self, piece: str) -> range:
        """Return the tiles of a piece.

        >>> TileGrid(level=LevelSize(rows=800, columns=600, row_um=1, column_um=1), size_px=200, mpp=1).tiles("2/5")
        range(2, 4)
        """
        number, pieces = map(int, piece.split("/"))
        return range(self.count * (number - 1) // pieces, self.count * number // pieces)
