"""Owns a folder tree of DICOM files as a source."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from imaging.dicom.header import read_header
from imaging.dicom.parse import parse
from imaging.dicom.pixels import read_pixels
from imaging.errors import DataFault, EnvironmentFault
from imaging.preprocess import PreprocessSpec
from imaging.sources.protocol import Instance, SourceFile


class DicomFolder:
    """DICOM files below a folder, whatever their names."""

    kind = "dicom"

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of CT in a soft-tissue window."""
        return PreprocessSpec()

    def scan(self) -> Iterator[SourceFile]:
        """List the files in the order of their relative POSIX names, one folder in memory at a time.

        A link is listed only if it leads to a file below the root; linked folders are not entered.
        """
        try:
            yield from self._below("")
        except OSError as error:
            # The message of an OSError quotes a path, and the path may name a patient.
            raise EnvironmentFault(_cannot("list a folder of", error)) from None

    def read(self, file: SourceFile, modality: str) -> Iterator[Instance]:
        """Yield the one image of a file; the bytes are read once."""
        if Path(file.name).name.upper() == "DICOMDIR":
            raise DataFault("dicomdir")
        try:
            data = (self.root / file.name).read_bytes()
        except OSError as error:
            raise EnvironmentFault(_cannot("read a file of", error)) from None
        yield _instance(data, modality)

    def _below(self, folder: str) -> Iterator[SourceFile]:
        with os.scandir(self.root / folder) as listing:
            # A folder sorts as "name/", so that the order is that of the whole names.
            entries = sorted(
                (entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in listing
            )
        for name, entry in entries:
            if name.endswith("/"):
                yield from self._below(folder + name)
            elif self._is_file(entry):
                status = entry.stat()
                yield SourceFile(name=folder + name, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return entry.is_file()
        # Unlike the entry's own methods, these two do not fail on a link that leads to itself.
        target = Path(os.path.realpath(entry.path))
        return target.is_relative_to(self.root) and target.is_file()


def _instance(data: bytes, modality: str) -> Instance:
    dataset = parse(data)
    header = read_header(dataset, modality)
    pixels = read_pixels(dataset)
    return Instance(
        patient_id=header.patient_id,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_instance_uid=header.sop_instance_uid,
        values=pixels.values,
        content_sha256=hashlib.sha256(data).hexdigest(),
        window=pixels.window,
        inverted=pixels.inverted,
        attributes=header.attributes,
    )


def _cannot(what: str, error: OSError) -> str:
    return f"cannot {what} the source ({error.strerror}): check its permissions and that it is still mounted"
