"""Blanking of text in pixels: its regions become black on every frame, and the pixels are written anew."""

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from imaging.deidentify.pixels.text_candidates import Region
from imaging.dicom.dicom_object import DicomObject
from imaging.dicom.parse import reading
from imaging.dicom.pixels import Layout, stored_frame

MARGIN_PX = 3
"""Margin around a region: letters reach beyond what a detector marks, and lossy coding smears them."""
FLOATING = {32: ("FloatPixelData", "OF"), 64: ("DoubleFloatPixelData", "OD")}
OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
"""Attributes that say where the fragments of encapsulated frames begin; of no use to native ones."""


def blank(dataset: Dataset, opened: DicomObject, layout: Layout, regions: Collection[Region]) -> Dataset:
    """Return the data set with regions blanked on all frames, as native pixel data (PS3.5 8.1).

    What was compressed becomes Explicit VR Little Endian, colour becomes RGB. LossyImageCompression stays: what
    compression took away does not come back (PS3.3 C.7.6.1.1.5). Raises DataFault "undecodable".
    """
    frames = [blanked(stored_frame(opened, layout, index), layout, regions) for index in range(layout.frames)]
    with reading("undecodable"):
        if opened.encapsulated:
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        _describe(dataset, layout, frames[0])
        _write(dataset, opened, layout, frames)
    return dataset


def blanked(frame: NDArray[Any], layout: Layout, regions: Collection[Region]) -> NDArray[Any]:
    """Return a frame of stored values whose regions are black: the same array where there are none.

    Black is the least value of the frame, or the greatest where small values are bright (PS3.3 C.7.6.3.1.2): one
    that the frame has anyway leaves its range as it was.
    """
    if not regions:
        return frame
    changed = frame.copy()
    black = frame.max() if layout.photometric == "MONOCHROME1" else frame.min()
    for region in regions:
        rows = slice(max(region.top - MARGIN_PX, 0), region.bottom + MARGIN_PX)
        changed[rows, max(region.left - MARGIN_PX, 0) : region.right + MARGIN_PX] = black
    return changed


def _describe(dataset: Dataset, layout: Layout, frame: NDArray[Any]) -> None:
    """Adapt the attributes that describe the pixels."""
    if layout.samples > 1:
        dataset.PhotometricInterpretation = "RGB"
        dataset.PlanarConfiguration = 0
    if layout.bits_allocated > 1 and frame.dtype.kind != "f":
        # Overlays in the bits above are gone: they are not among the stored values.
        dataset.BitsAllocated = 8 * frame.dtype.itemsize
        dataset.HighBit = layout.bits_stored - 1
    for keyword in OFFSETS:
        if keyword in dataset:
            delattr(dataset, keyword)


def _write(dataset: Dataset, opened: DicomObject, layout: Layout, frames: list[NDArray[Any]]) -> None:
    keyword, vr = FLOATING.get(opened.floating_bits, ("PixelData", "OW"))
    # Single bytes stand as bytes, but in implicit VR everything is OW (PS3.5 A.1 and A.2).
    if frames[0].dtype.itemsize == 1 and dataset.file_meta.TransferSyntaxUID.is_implicit_VR is False:
        vr = "OB"
    if layout.bits_allocated == 1:
        value = np.packbits(np.stack(frames), bitorder="little").tobytes()
    else:
        order: Literal["<", ">"] = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
        value = b"".join(frame.astype(frame.dtype.newbyteorder(order)).tobytes() for frame in frames)
    dataset.add_new(keyword, vr, value + bytes(len(value) % 2))
