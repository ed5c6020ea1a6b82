"""Mosaics of Siemens MR scanners: one image that holds all slices of a volume as tiles, row by row.

DICOM does not know them; how many slices there are, and on which side of the first the next one lies, stands in private
elements alone. Read as nibabel (nicom.dicomwrappers.MosaicWrapper), dcm2niix and SPM read them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imaging.dicom.attributes import Attributes, first, quietly
from imaging.dicom.csa_header import csa_values
from imaging.dicom.dicom_object import PER_FRAME, SHARED, DicomObject, is_mosaic
from imaging.dicom.geometry import Matrix, is_orthonormal, normal, numbers, orientation, position
from imaging.dicom.parse import reading
from imaging.dicom.pixels import Layout
from imaging.errors import DataFault

NUMBER = ("SIEMENS MR HEADER", 0x0019, 0x0A)
"""Creator, group and element of NumberOfImagesInMosaic, which anonymizers of public data sets often leave."""
CSA = ("SIEMENS CSA HEADER", 0x0029, 0x10)
"""The same of the CSA header of the image, which has the number too, and the normal."""
TIMES = ("SIEMENS MR HEADER", 0x0019, 0x29)
"""The same of MosaicRefAcqTimes, the time of each slice, which is in the CSA header too."""
COUNT, NORMAL, EACH_TIME = "NumberOfImagesInMosaic", "SliceNormalVector", "MosaicRefAcqTimes"
LEAST, MOST = 0.75, 2.5
"""Side of a slice by its acquired matrix: interpolation doubles it, and nothing makes it smaller."""
CSA_BYTES = 2**20
"""The longest CSA header that is read; those of images have 9 to 15 KB."""
PARALLEL = 0.999
"""The cosine from which on two normals are the same or opposite, and not two different ones: 2.6 degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mosaic:
    """Slices in one image: their number, the size of each, and how many are in a row of tiles.

    `geometry` is the position of the first slice and the way to the next in mm; None where it is not known.
    """

    count: int
    rows: int
    columns: int
    grid: int
    geometry: tuple[Matrix, Matrix] | None

    def tile(self, stored: NDArray[Any], index: int) -> NDArray[Any]:
        """Return the stored values of one slice from those of the whole image."""
        down, across = divmod(index, self.grid)
        rows = slice(down * self.rows, (down + 1) * self.rows)
        return stored[rows, across * self.columns : (across + 1) * self.columns]

    def check_rest(self, stored: NDArray[Any]) -> None:
        """Raise DataFault "surplus-data" where a tile behind the last slice holds a picture.

        The scanner fills these tiles with one value.
        """
        for index in range(self.count, self.grid**2):
            rest = self.tile(stored, index)
            if (rest != rest[0, 0]).any():
                raise DataFault(
                    "surplus-data",
                    f"tile {index + 1} of a Siemens mosaic is no slice by NumberOfImagesInMosaic, {self.count}, "
                    "and is not empty",
                )

    def slice_attributes(self, attributes: Attributes, index: int = 0) -> Attributes:
        """Return the attributes of one slice from those of the whole image; it may have no position."""
        own = {name: value for name, value in attributes.items() if name != "ImagePositionPatient"}
        own |= {"Rows": (float(self.rows),), "Columns": (float(self.columns),)}
        if self.geometry is not None:
            first_mm, step_mm = self.geometry
            own["ImagePositionPatient"] = tuple((first_mm + index * step_mm).tolist())
        return own


def mosaic_of(opened: DicomObject, layout: Layout) -> Mosaic | None:
    """Return the mosaic that an object is, or None where it is none.

    Raises DataFault "unsupported" where the number of slices is not known: the image as a whole is no slice.
    """
    dataset = opened.dataset
    if dataset is None or not is_mosaic(opened.attributes) or SHARED in dataset or PER_FRAME in dataset:
        return None
    with reading("unreadable"):
        raw = _private(dataset, *CSA)
        usable = isinstance(raw, bytes) and len(raw) <= CSA_BYTES
        csa = csa_values(raw, (COUNT, NORMAL, EACH_TIME)) if usable else {}
        count = _count(dataset, csa)
    grid = math.ceil(math.sqrt(count))
    if layout.rows % grid or layout.columns % grid:
        size = f"{layout.rows} x {layout.columns}"
        raise DataFault(
            "unsupported", f"a Siemens mosaic of {count} slices whose size {size} is no multiple of {grid}"
        )
    rows, columns = layout.rows // grid, layout.columns // grid
    with reading("unreadable"):
        _check_count(dataset, csa, count, max(rows, columns))
    return Mosaic(
        count=count,
        rows=rows,
        columns=columns,
        grid=grid,
        geometry=_geometry(
            opened.attributes, csa, ((layout.rows - rows) / 2, (layout.columns - columns) / 2)
        ),
    )


def _count(dataset: Dataset, csa: Mapping[str, list[str]]) -> int:
    """Return the number of slices, of which an element of its own and the CSA header tell."""
    read = [_whole(value) for value in (_private(dataset, *NUMBER), *csa.get(COUNT, [])[:1])]
    stated = {number for number in read if number is not None}
    if not stated:
        raise DataFault(
            "unsupported",
            "a Siemens mosaic without NumberOfImagesInMosaic: its private elements were removed",
        )
    if len(stated) > 1 or min(stated) < 1:
        raise DataFault("unsupported", f"a Siemens mosaic whose NumberOfImagesInMosaic is {sorted(stated)}")
    return stated.pop()


def _check_count(dataset: Dataset, csa: Mapping[str, list[str]], count: int, side: int) -> None:
    """Raise DataFault "unsupported" where another element says that there are more slices, or larger or smaller ones.

    With a wrong number the image is cut in another grid, and each slice is several or a part of one.
    """
    times = max(_values(_private(dataset, *TIMES)), len(csa.get(EACH_TIME, [])))
    if times > count:
        raise DataFault(
            "unsupported",
            f"a Siemens mosaic whose NumberOfImagesInMosaic is {count}, with {times} MosaicRefAcqTimes",
        )
    # Its first two numbers are of the readout, one of them zero (0018,1310); phases may be oversampled.
    acquired = quietly(lambda: max(map(int, list(dataset["AcquisitionMatrix"].value)[:2])))
    if acquired and acquired > 0 and not LEAST <= side / acquired < MOST:
        raise DataFault(
            "unsupported",
            f"a Siemens mosaic whose NumberOfImagesInMosaic is {count}, which makes slices of {side} pixels, and whose "
            f"AcquisitionMatrix has {acquired}",
        )


def _values(value: Any) -> int:
    """Return the number of values, which are 8 bytes each in a file of unknown VRs."""
    if isinstance(value, bytes):
        return len(value) // 8
    return len(value) if isinstance(value, Sequence) and not isinstance(value, str) else 0


def _whole(value: Any) -> int | None:
    """Return a number, which may be a text, or two bytes in a file of unknown VRs; None where it is none."""
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little")
    number: int | None = quietly(lambda: int(float(value)))
    return number


def _private(dataset: Dataset, creator: str, group: int, element: int) -> Any:
    value = quietly(lambda: dataset.private_block(group, creator)[element].value)
    return None if value in ("", b"") else value


def _geometry(
    attributes: Attributes, csa: Mapping[str, list[str]], shift: tuple[float, float]
) -> tuple[Matrix, Matrix] | None:
    """Return the position of the first slice and the way to the next one, or None where one of them is not known.

    The position in the header is that of the corner of an image as large as the mosaic around the middle of the slice:
    it is half of the difference in rows and columns (`shift`) too far out. The slice normal decides the direction.
    """
    cosines, corner = orientation(attributes), position(attributes)
    spacing, step = numbers(attributes, "PixelSpacing", 2), first(attributes, "SpacingBetweenSlices")
    stated = quietly(lambda: np.array([*map(float, csa[NORMAL])]))
    if cosines is None or corner is None or spacing is None or not step or not is_orthonormal(cosines):
        return None
    turned = np.array(cosines)
    unit = normal(turned)
    if stated is None or stated.shape != (3,) or not abs(float(stated @ unit)) >= PARALLEL:
        return None
    down, across = shift
    first_mm = np.array(corner) + turned[:3] * spacing[1] * across + turned[3:] * spacing[0] * down
    return first_mm, math.copysign(abs(step), float(stated @ unit)) * unit
