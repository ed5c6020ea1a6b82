"""Readers of image formats, by the name of the format: from the payload of a file to its instances."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from imaging.dicom.limits import LIMITS
from imaging.file_io import process_buffer
from imaging.formats.dicom import read_dicom
from imaging.formats.picture import read_picture
from imaging.formats.series import read_series
from imaging.formats.slide import read_slide, read_tiff_slide
from imaging.image.instance import Instance
from imaging.sources.medmnist_file import MedMnistFile
from imaging.sources.protocol import Payload

Reader = Callable[[Payload, str], Iterator[Instance]]
"""Takes a payload and the expected modality; raises DataFault for a bad file. An instance is valid until the next."""


def _read_object(payload: Payload, modality: str) -> Iterator[Instance]:
    (content,) = payload.contents
    return read_dicom(process_buffer().load(content, LIMITS.file_bytes), modality)


def _read_nifti(payload: Payload, modality: str) -> Iterator[Instance]:
    # Loaded here: nibabel takes a quarter of a second of every worker, and most archives have no NIfTI.
    from imaging.formats.nifti import read_nifti

    return read_nifti(payload, modality)


def _read_rows(payload: Payload, modality: str) -> Iterator[Instance]:
    (content,) = payload.contents
    path = Path(str(content))
    return _medmnist_file(path, path.stat().st_mtime_ns).instances(payload.name)


@lru_cache(maxsize=1)
def _medmnist_file(path: Path, mtime_ns: int) -> MedMnistFile:
    # Kept open: its rows come in many payloads, and inflating it takes a second.
    return MedMnistFile(path)


FORMATS: Mapping[str, Reader] = {
    "dicom": _read_object,
    "series": read_series,
    "nifti": _read_nifti,
    "picture": read_picture,
    "slide": read_slide,
    "tiff-slide": read_tiff_slide,
    "medmnist": _read_rows,
}
