"""Owns the bytes of a de-identified file: a preamble of zeros, a file meta group of our own, the data set."""

import struct
from io import BytesIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from imaging.deidentify.statement import VERSION_NAME
from imaging.dicom.elements import SEQUENCE_END, UNDEFINED
from imaging.dicom.parse import reading

IMPLEMENTATION_CLASS = UID("2.25.292795442295406804666398100462442980605")
"""Names this program in every file that it writes (PS3.10 7.1); made once from a UUID."""
PIXEL_DATA = 0x7FE00010


def write_object(dataset: Dataset) -> bytes:
    """Return a DICOM file (PS3.10 section 7) of a data set that `scrub` returned, in its own transfer syntax.

    The same data set gives the same bytes.
    """
    with reading("unreadable"):
        syntax = dataset.file_meta.TransferSyntaxUID
        tail: list[bytes] = []
        if syntax != DeflatedExplicitVRLittleEndian:
            dataset, tail = _without_pixels(dataset)
        dataset.file_meta = _file_meta(dataset, syntax)
        dataset.preamble = bytes(128)
        buffer = BytesIO()
        dcmwrite(buffer, dataset, enforce_file_format=True)
        return b"".join([buffer.getbuffer(), *tail])


def _without_pixels(dataset: Dataset) -> tuple[Dataset, list[bytes]]:
    """Return the data set up to its pixel data and the bytes of these, where they come last: they are never copied."""
    pixels = dataset.get_item(PIXEL_DATA) if PIXEL_DATA in dataset else None
    if not isinstance(pixels, RawDataElement) or max(dataset.keys()) != PIXEL_DATA:
        return dataset, []
    rest = Dataset({tag: element for tag, element in dataset.items() if tag != PIXEL_DATA})
    rest.set_original_encoding(*dataset.original_encoding, dataset.original_character_set)
    return rest, [
        _header(pixels),
        pixels.value or b"",
        *([_end(pixels)] if pixels.length == UNDEFINED else []),
    ]


def _header(element: RawDataElement) -> bytes:
    """Return tag, VR and length of an element (PS3.5 7.1)."""
    order = "<" if element.is_little_endian else ">"
    tag = struct.pack(f"{order}HH", element.tag.group, element.tag.element)
    vr = b"" if element.is_implicit_VR else str(element.VR).encode() + bytes(2)
    return tag + vr + struct.pack(f"{order}I", element.length)


def _end(element: RawDataElement) -> bytes:
    order = "<" if element.is_little_endian else ">"
    return struct.pack(f"{order}HHI", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0)


def _file_meta(dataset: Dataset, syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS
    meta.ImplementationVersionName = VERSION_NAME
    return meta
