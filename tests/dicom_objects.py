"""Small DICOM objects for tests of the reader, and helpers that read them."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging.dicom.dicom_object import DicomObject, open_object
from imaging.dicom.pixel_length import check_present
from imaging.dicom.pixels import layout_of, stored_frame
from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from imaging.image.image import Image
from tests.requirements import DATA

NATIVE = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
]
PREAMBLE = bytes(128) + b"DICM"
UNDEFINED = 0xFFFFFFFF


def dataset(stored: NDArray[Any], **changes: Any) -> Dataset:
    """Return an image of stored values (rows, columns), (frames, rows, columns) or (..., 3); None takes one out."""
    samples = 3 if stored.ndim > 2 and stored.shape[-1] == 3 else 1
    rows, columns = stored.shape[-3:-1] if samples == 3 else stored.shape[-2:]
    bits = 8 * stored.itemsize
    attributes = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "PatientID": "P",
        "Modality": "CT",
        "SamplesPerPixel": samples,
        "PhotometricInterpretation": "RGB" if samples == 3 else "MONOCHROME2",
        "PlanarConfiguration": 0 if samples == 3 else None,
        "NumberOfFrames": len(stored) if stored.ndim == 4 or (stored.ndim == 3 and samples == 1) else None,
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": None,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "PixelData": stored.tobytes(),
    } | changes
    made = Dataset()
    for keyword, value in attributes.items():
        if value is not None:
            setattr(made, keyword, value)
    if "HighBit" not in made and "BitsStored" in made:
        made.HighBit = made.BitsStored - 1
    if "PixelData" in made:
        made["PixelData"].VR = "OB" if bits == 8 else "OW"
    return made


def file_bytes(made: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a data set as a whole file."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", CTImageStorage)
    made.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2.3.4")
    buffer = BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    made.save_as(buffer, enforce_file_format=True, implicit_vr=implicit, little_endian=little)
    return buffer.getvalue()


def made(stored: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    """Return a file of stored values."""
    return file_bytes(dataset(stored, **changes), syntax)


def compressed(
    frames: Iterable[bytes], like: NDArray[Any], syntax: str, value: bytes | None = None, **changes: Any
) -> bytes:
    """Return a file of codestreams, or of the whole value of encapsulated pixel data."""
    one = dataset(like, **changes)
    one.PixelData = encapsulate([*frames]) if value is None else value
    one["PixelData"].VR = "OB"
    one["PixelData"].is_undefined_length = True
    return file_bytes(one, syntax)


def opened(data: bytes) -> DicomObject:
    return open_object(data)


def stored_frames(data: bytes) -> Iterator[NDArray[Any]]:
    """Yield the stored values of each frame."""
    one = open_object(data)
    layout = layout_of(one.attributes)
    check_present(one, layout)
    for index in range(layout.frames):
        yield stored_frame(one, layout, index)


def images(data: bytes, modality: str = "CT") -> list[Image]:
    """Return the images of a file."""
    return [one.image for one in read_dicom(data, modality)]


def image(data: bytes) -> Image:
    """Return the only image of a file."""
    (result,) = images(data)
    return result


def fault(data: bytes, modality: str = "CT") -> DataFault:
    """Return why a file is refused."""
    with pytest.raises(DataFault) as caught:
        list(read_dicom(data, modality))
    return caught.value


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an explicit little-endian element; its length may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<HI", 0, size) if long else struct.pack("<H", size)) + value


def meta(syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a preamble and the shortest file meta information."""
    uid = syntax.encode()
    return PREAMBLE + element(0x00020010, b"UI", uid + b"\0" * (len(uid) % 2))


def item(content: bytes, *, defined: bool = False) -> bytes:
    """Return an item of a sequence."""
    if defined:
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    return struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + content + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


def nested(depth: int, tag: int = 0x00081111) -> bytes:
    """Return explicit sequences of undefined length in one another."""
    header = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, UNDEFINED)
    opening = header + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    ending = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opening * depth + ending * depth


def insert(data: bytes, extra: bytes, before: int) -> bytes:
    """Return a file with bytes before the first element of a tag (explicit or implicit little endian)."""
    at = data.index(struct.pack("<HH", before >> 16, before & 0xFFFF))
    return data[:at] + extra + data[at:]


def ramp(shape: Sequence[int], kind: Any = np.int16, step: int = 1) -> NDArray[Any]:
    """Return values that all differ, as far as their kind can."""
    values: NDArray[Any] = (np.arange(np.prod(shape)) * step).astype(kind).reshape(tuple(shape))
    return values


def corpus() -> list[Path]:
    """Return every file inside the wheels of pydicom and nibabel that might be DICOM, and the real CT slices if any."""
    roots = [
        Path(pydicom.__file__).parent / "data",
        Path(nibabel.__file__).parent / "nicom" / "tests" / "data",
        DATA / "ct-contrast",
    ]
    result = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
    return [path for path in result if path.suffix not in (".py", ".pyc")]
