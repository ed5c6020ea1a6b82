"""Source grid of an image: its shape and spacing, and where its pixels lie in the patient.

A row of a dataset keeps it, so that a mask on the model's grid can be taken back to the image that it was made of
(`imaging.preprocess.inverse`). It has no identifier: two images of one position are alike.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault

Affine = NDArray[np.float64]
"""Matrix (4, 4) from (column, row, slice, 1) to (x, y, z, 1) in mm, LPS (PS3.3 C.7.6.2.1.1)."""

AFFINE_BYTES = 96
"""The first three rows of an affine as little-endian doubles; all zeros where it is not known."""
NO_AFFINE = bytes(AFFINE_BYTES)
PACKED = struct.Struct("<4d")
"""In front of an affine: how many slices there are, and the spacing of slices, rows and columns, 0 where not known."""
GRID_BYTES = PACKED.size + AFFINE_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class SourceGrid:
    """Grid of an image (rows, columns), or of a volume (slices, rows, columns).

    `spacing` is the distance of neighbouring pixels along each axis: in mm, or relative where a file gives only the
    ratio; None means square pixels of unknown size. `affine` is None where the file gives no position. The third
    column of an image's affine is the unit normal.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    affine: Affine | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows and columns; an image is one slice.

        >>> SourceGrid((4, 6)).size
        (1, 4, 6)
        """
        slices, rows, columns = (1, *self.shape)[-3:]
        return slices, rows, columns

    def to_json(self) -> dict[str, Any]:
        """Return the grid as a JSON value, as it travels into the sandbox."""
        affine = None if self.affine is None else self.affine[:3].ravel().tolist()
        return {"shape": list(self.shape), "spacing": self.spacing and list(self.spacing), "affine": affine}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SourceGrid":
        """Return the grid of a JSON value."""
        spacing, affine = value["spacing"], value["affine"]
        return cls(
            shape=tuple(value["shape"]),
            spacing=tuple(spacing) if spacing else None,
            affine=None if affine is None else _whole(np.array(affine)),
        )


def pack_grid(shape: tuple[int, ...], spacing: tuple[float, ...] | None, affine: Affine | None) -> bytes:
    """Return a grid but for its rows and columns in GRID_BYTES; `unpack_grids` reads many at once."""
    known = spacing or (0.0, 0.0)
    slice_spacing = known[0] if len(known) == 3 else 0.0
    numbers = PACKED.pack(shape[0] if len(shape) == 3 else 1, slice_spacing, known[-2], known[-1])
    return numbers + (NO_AFFINE if affine is None else affine[:3].tobytes())


def unpack_grids(packed: bytes | bytearray | memoryview) -> dict[str, list[Any]]:
    """Return the columns of `imaging.dataset.tables.schemas.GRID` of packed grids, one behind the other."""
    content = bytes(packed)
    numbers = np.frombuffer(content, "<f8").reshape(-1, GRID_BYTES // 8)
    slices, *spacings = numbers[:, :4].T.tolist()
    columns: dict[str, list[Any]] = {"slices": list(map(int, slices))}
    for name, values in zip(("slice_spacing", "row_spacing", "column_spacing"), spacings, strict=True):
        columns[name] = [value or None for value in values]
    columns["affine"] = [
        content[at + PACKED.size : at + GRID_BYTES] for at in range(0, len(content), GRID_BYTES)
    ]
    return columns


def grid_of_row(row: Mapping[str, Any], *, volume: bool) -> SourceGrid:
    """Return the grid of a row of a dataset, which has the columns `rows`, `columns`, `spacing_mm` and those of GRID.

    Rows of release 0.1.0 have no grid: of an image follows its size, and square pixels of `spacing_mm`. Raises
    UserFault for such a row of a volume, whose number of slices is not known.
    """
    plane = (row["rows"], row["columns"])
    if not row["slices"]:
        if volume:
            raise UserFault(
                "the volumes of this dataset were taken in by release 0.1.0, which did not keep how many slices they "
                "had: ingest them into a new dataset"
            )
        side = row["spacing_mm"]
        return SourceGrid(plane, (side, side) if side else None)
    axes = ("slice", "row", "column") if volume else ("row", "column")
    spacing = tuple(row[f"{axis}_spacing"] for axis in axes)
    return SourceGrid(
        shape=(row["slices"], *plane) if volume else plane,
        spacing=None if None in spacing else spacing,
        affine=None if row["affine"] == NO_AFFINE else _whole(np.frombuffer(row["affine"], "<f8")),
    )


def _whole(rows: NDArray[Any]) -> Affine:
    return np.vstack([np.asarray(rows, np.float64).reshape(3, 4), [[0, 0, 0, 1]]])
