"""Owns the table of formats: what becomes of a payload's bytes."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from imaging.buffer import FileBuffer
from imaging.dicom.limits import LIMITS
from imaging.formats.dicom import read_dicom
from imaging.formats.medmnist import read_rows
from imaging.formats.nifti import read as read_nifti
from imaging.formats.picture import read as read_picture
from imaging.formats.series import read_series
from imaging.image.instance import Instance
from imaging.sources.protocol import Payload

Reader = Callable[[Payload, str], Iterator[Instance]]
"""Takes a payload and the modality that is expected; raises DataFault for a bad one."""


def _read_object(payload: Payload, modality: str) -> Iterator[Instance]:
    (content,) = payload.contents
    data = FileBuffer().load(content, LIMITS.file_bytes) if isinstance(content, Path) else content
    return read_dicom(data, modality)


FORMATS: Mapping[str, Reader] = MappingProxyType(
    {
        "dicom": _read_object,
        "series": read_series,
        "nifti": read_nifti,
        "picture": read_picture,
        "medmnist": read_rows,
    }
)
