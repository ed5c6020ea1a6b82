"""Whole slides that are made up: stained tissue on white glass, in DICOM (one object a level) and as TIFF pyramids."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
GLASS, STAIN = (243, 242, 240), (180, 70, 140)
Pixels = NDArray[np.uint8]


def tissue(side: int, *, nuclei: int = 0, seed: int = 0) -> Pixels:
    """Return white glass with a square of stained tissue in its middle, which has dark nuclei."""
    slide = np.full((side, side, 3), GLASS, np.uint8)
    rng = np.random.default_rng(seed)
    first, last = side // 4, 3 * side // 4
    slide[first:last, first:last] = STAIN + rng.integers(-10, 11, (last - first, last - first, 3))
    for row, column in rng.integers(first, last - 8, (nuclei, 2)):
        slide[row : row + 8, column : column + 8] = (70, 40, 110)
    return slide


def frames_of_level(pixels: Pixels, tile: int) -> list[Pixels]:
    """Return the tiles of a level, row by row, filled up with black beyond its edges (TILED_FULL)."""
    rows, columns = (-(-side // tile) * tile for side in pixels.shape[:2])
    full = np.zeros((rows, columns, *pixels.shape[2:]), pixels.dtype)
    full[: pixels.shape[0], : pixels.shape[1]] = pixels
    return [
        full[top : top + tile, left : left + tile]
        for top in range(0, rows, tile)
        for left in range(0, columns, tile)
    ]


def slide_object(
    pixels: Pixels,
    mpp: float | None = 0.5,
    tile: int = 32,
    *,
    jpeg: bool = False,
    kept: Iterable[int] | None = None,
    matrix: tuple[int, int] | None = None,
    **changes: Any,
) -> bytes:
    """Return a level in DICOM; with `kept` it is sparse, and has only those of its frames."""
    grid = [
        (top, left) for top in range(0, pixels.shape[0], tile) for left in range(0, pixels.shape[1], tile)
    ]
    frames, places = frames_of_level(pixels, tile), None
    if kept is not None:
        kept = list(kept)
        frames, places = [frames[one] for one in kept], [grid[one] for one in kept]
    return level_object(frames, mpp, matrix or pixels.shape[:2], places, jpeg=jpeg, **changes)


def level_object(
    frames: Sequence[Pixels],
    mpp: float | None,
    matrix: tuple[int, ...],
    places: Sequence[tuple[int, int]] | None = None,
    *,
    jpeg: bool = False,
    **changes: Any,
) -> bytes:
    """Return a level in DICOM from its frames; `places` are their first rows and columns, from 0 on."""
    first = frames[0]
    samples = 3 if first.ndim == 3 else 1
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = WSI
    values = {
        "SOPClassUID": WSI,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "PatientID": "P1",
        "Modality": "SM",
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "Rows": first.shape[0],
        "Columns": first.shape[1],
        "NumberOfFrames": len(frames),
        "SamplesPerPixel": samples,
        "PhotometricInterpretation": "MONOCHROME2" if samples == 1 else "YBR_FULL_422" if jpeg else "RGB",
        "BitsAllocated": 8 * first.dtype.itemsize,
        "BitsStored": 8 * first.dtype.itemsize,
        "HighBit": 8 * first.dtype.itemsize - 1,
        "PixelRepresentation": 0,
        "TotalPixelMatrixRows": matrix[0],
        "TotalPixelMatrixColumns": matrix[1],
        "DimensionOrganizationType": "TILED_FULL" if places is None else "TILED_SPARSE",
        **({"PlanarConfiguration": 0} if samples == 3 else {}),
    } | changes
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    measures, shared = Dataset(), Dataset()
    if mpp is not None:
        measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = Items([measures])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    if places is not None:
        dataset.PerFrameFunctionalGroupsSequence = Items([_groups(place) for place in places])
    if jpeg:
        coded: dict[bytes, bytes] = {}
        parts = [
            coded.setdefault(one.tobytes(), imagecodecs.jpeg8_encode(np.ascontiguousarray(one), level=90))
            for one in frames
        ]
        dataset.PixelData = encapsulate(parts)
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = b"".join(one.tobytes() for one in frames)
    dataset["PixelData"].VR = "OB" if first.dtype.itemsize == 1 else "OW"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _groups(place: tuple[int, int]) -> Dataset:
    groups, position = Dataset(), Dataset()
    position.RowPositionInTotalImagePixelMatrix, position.ColumnPositionInTotalImagePixelMatrix = (
        at + 1 for at in place
    )
    groups.PlanePositionSlideSequence = Items([position])
    return groups


def _sub_ifds(path: Path, levels: Sequence[Pixels], um: float, **more: Any) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(levels[0], subifds=len(levels) - 1, **_tags(um), **more)
        for number, level in enumerate(levels[1:], start=1):
            tiff.write(level, subfiletype=1, **_tags(um * 2**number))


def _ome(path: Path, levels: Sequence[Pixels], um: float) -> None:
    sizes = {f"PhysicalSize{axis}": um for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    _sub_ifds(path, levels, 0.0, metadata={"axes": "YXS", **sizes})


def _pages(path: Path, levels: Sequence[Pixels], um: float) -> None:
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            tiff.write(level, subfiletype=int(number > 0), metadata=None, **_tags(um * 2**number))


def _aperio(path: Path, levels: Sequence[Pixels], um: float) -> None:
    name = "Aperio Image Library v11.2.1\r\n"
    label = np.zeros((40, 40, 3), np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            text = f"{name}|MPP = {um}" if number == 0 else name
            tiff.write(level, description=text, metadata=None, **_tags(0.0))
            if number == 0:
                tiff.write(level[::8, ::8], photometric="rgb", description=name, metadata=None)
        for kind, flag in (("label", 1), ("macro", 9)):
            tiff.write(
                label, photometric="rgb", subfiletype=flag, description=f"{name}{kind} 40x40", metadata=None
            )


def _tags(um: float) -> dict[str, Any]:
    tags: dict[str, Any] = {
        "tile": (64, 64),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 95},
    }
    return tags | ({"resolution": (1e4 / um, 1e4 / um), "resolutionunit": "CENTIMETER"} if um else {})


TIFF_KINDS: Mapping[str, Callable[[Path, Sequence[Pixels], float], None]] = {
    "sub-ifds.tif": _sub_ifds,
    "pages.tif": _pages,
    "ome.ome.tif": _ome,
    "aperio.svs": _aperio,
}
"""Writers of pyramids by the name of the file: as QuPath, libvips, Bio-Formats and Aperio lay them out."""


def halved(pixels: Pixels, levels: int) -> list[Pixels]:
    """Return the levels of a pyramid, each half as large as the one before."""
    made = [pixels]
    for _ in range(levels - 1):
        one = made[-1]
        rows, columns = (side // 2 * 2 for side in one.shape[:2])
        blocks = one[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, -1).mean(axis=(1, 3))
        made.append(np.rint(blocks).astype(np.uint8))
    return made
