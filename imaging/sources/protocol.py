"""Protocol of an image source: it lists files and hands over their bytes; the format of a file by its name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imaging.preprocess.spec import PreprocessSpec

FETCHED_LIMIT_BYTES = 2 * 2**30
"""Largest file that is fetched into memory; a file of this machine is mapped and may be larger."""

DICOMWEB = "dicomweb+"
"""What the address of a DICOMweb server begins with, before https."""

SUFFIXES: Mapping[str, str] = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".tif": "picture",
    ".tiff": "picture",
}
"""Formats that are known by a suffix. DICOM is not: archives name its files as they like."""
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif")
"""Of slides in TIFF, pictures only where slides are asked for or the table names them: see `Patients`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One listed file. Its name may identify a patient, so it never leaves ingest.

    `tag` changes with the content, where a source has such a value in its listing: the ETag of S3. A file that is
    read in several pieces is listed once; `piece` says which of how many one of them is, as in "2/5".
    """

    name: str
    size_bytes: int
    mtime_ns: int
    tag: str = ""
    piece: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The bytes of one listed file on their way to a reader, and what its source knows beside them.

    `format` is a key of `imaging.formats.readers.FORMATS`. Each of `contents` is a file of this machine or the
    bytes themselves; there are several where many files make one volume. `metadata` has what the format cannot
    express (a picture names no patient): "patient", "label", "rows".
    """

    format: str
    name: str
    contents: tuple[Path | bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()


class Source(Protocol):
    """Place that images come from."""

    @property
    def kind(self) -> str:
        """The source's kind, a key of `imaging.sources.open_source.KINDS`."""
        ...

    def default_spec(self) -> PreprocessSpec:
        """Return the preparation of its images where none is configured."""
        ...

    def scan(self) -> Iterator[SourceFile]:
        """List the files, in a stable order, without reading them."""
        ...

    def fetch(self, file: SourceFile) -> Payload:
        """Hand over one file; raise DataFault for a bad one, EnvironmentFault where it cannot be reached."""
        ...


def format_of(name: str) -> str:
    """Return the format of a file, a key of `imaging.formats.readers.FORMATS`.

    >>> format_of("a/b.NII.gz"), format_of("c.jpg"), format_of("IM0001"), format_of("1.2.840.1")
    ('nifti', 'picture', 'dicom', 'dicom')
    """
    lower = name.lower()
    # Called for each file of an archive, and most have none of the suffixes.
    if not lower.endswith(tuple(SUFFIXES)):
        return "dicom"
    return next(format for suffix, format in SUFFIXES.items() if lower.endswith(suffix))
