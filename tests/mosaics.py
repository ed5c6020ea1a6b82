"""Synthetic mosaics of Siemens scanners: slices as tiles of one image, with the private elements that describe them."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from tests.dicom_objects import dataset

TILTED = (1.0, 0.0, 0.0, 0.0, 0.8, -0.6)
FIRST = np.array([-30.0, 20.0, 45.0])
Entries = Mapping[str, Sequence[str]]
VRS = {"AcquisitionMatrixText": b"SH", "SliceNormalVector": b"FD"}


def volume(count: int, rows: int = 8, columns: int = 6) -> NDArray[np.uint16]:
    """Return slices of noise, all different."""
    return np.random.default_rng(count).integers(0, 4096, (count, rows, columns)).astype(np.uint16)


def csa(entries: Entries, form: str = "newer") -> bytes:
    """Return a CSA header in the newer form, or in the older one as GDCM or as SPM reads it."""
    counts = [len(texts) for texts in entries.values()]
    parts = [b"SV10\4\3\2\1"] if form == "newer" else []
    parts.append(struct.pack("<2I", len(entries), 77))
    for name, texts in entries.items():
        parts.append(
            struct.pack("<64si4s3i", name.encode(), len(texts), VRS.get(name, b"IS"), 3, len(texts), 77)
        )
        for text in texts:
            raw = text.encode() + b"\0" if text else b""
            lengths = (
                [len(raw) + counts[0], 1, 77, 1] if form == "SPM" else [len(raw), len(raw), 77, len(raw)]
            )
            parts.append(struct.pack("<4i", *lengths) + raw + bytes(-len(raw) % 4))
    return b"".join(parts)


def image_header(count: int, normal: Sequence[float]) -> Entries:
    """Return the entries that matter, between others."""
    return {
        "EchoLinePosition": ["32", "64", ""],
        "AcquisitionMatrixText": ["64p*64"],
        "NumberOfImagesInMosaic": [str(count)],
        "SliceNormalVector": [f"{value:.8f}" for value in normal],
        "B_value": [],
    }


def mosaic(
    slices: NDArray[Any],
    cosines: Sequence[float] = TILTED,
    *,
    sign: int = 1,
    number: int | None = None,
    times: Sequence[float] = (),
    header: bytes | None = b"",
    **changes: Any,
) -> Dataset:
    """Return slices (n, rows, columns) as one image; the first lies at FIRST, the next in the direction of `sign`.

    `number` is NumberOfImagesInMosaic in an element of its own, `times` are MosaicRefAcqTimes,
    `header` the CSA header, None where there is none.
    """
    count, rows, columns = slices.shape[:3]
    grid = math.ceil(math.sqrt(count))
    whole = np.zeros((grid * rows, grid * columns, *slices.shape[3:]), slices.dtype)
    for n, one in enumerate(slices):
        down, across = divmod(n, grid)
        whole[down * rows : (down + 1) * rows, across * columns : (across + 1) * columns] = one
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    # The corner of an image as large as the whole around the middle of the first slice.
    corner = FIRST - row * 2.0 * (grid - 1) * columns / 2 - column * 3.0 * (grid - 1) * rows / 2
    plain = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "ImageOrientationPatient": list(cosines),
        "ImagePositionPatient": [round(value, 9) for value in corner.tolist()],
        "PixelSpacing": [3, 2],
        "SpacingBetweenSlices": 5,
        "SliceThickness": 4,
    }
    made = dataset(whole, **{**plain, **changes})
    if header is not None:
        made.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(
            0x10, "OB", header or csa(image_header(count, sign * np.cross(row, column)))
        )
    if number is not None:
        made.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", number)
    if times:
        made.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x29, "FD", list(times))
    return made
