"""Folder tree of files as a source."""

import os
from collections.abc import Iterator
from pathlib import Path

from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import EnvironmentFault
from imaging.file_io import open_to_read
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.patients import Patients
from imaging.sources.protocol import Payload, SourceFile


class FolderSource:
    """Files below a folder, whatever their names; they are handed over as paths, not read."""

    kind = "folder"

    def __init__(self, root: str | Path, patients: Patients = Patients()) -> None:  # noqa: B008 (frozen)
        self.root = Path(root).resolve()
        self.patients = patients

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of CT in a soft-tissue window, or that of pictures where the table names pictures."""
        return self.patients.default_spec()

    def scan(self) -> Iterator[SourceFile]:
        """List the files in the order of their relative POSIX names, one folder in memory at a time.

        A link is listed only if it leads to a file below the root; linked folders are not entered.
        """
        try:
            yield from self.patients.checked(self._below("", str(self.root)))
        except OSError as error:
            # The message of an OSError quotes a path, and the path may name a patient.
            raise EnvironmentFault(
                f"cannot list a folder of the source ({error.strerror}): "
                "check its permissions and that it is still mounted"
            ) from None

    def fetch(self, file: SourceFile) -> Payload:
        """Hand over the path of a file."""
        return self.patients.payload(file, lambda: self._checked(file.name))

    def _checked(self, name: str) -> Path:
        # Readers run in other processes, where a file that cannot be opened would count as a bad one.
        with open_to_read(self.root / name) as (_, size):
            check_limit("too-large", "the file's size in bytes", size, LIMITS.file_bytes)
        return self.root / name

    def _below(self, folder: str, path: str) -> Iterator[SourceFile]:
        with os.scandir(path) as listing:
            # A folder sorts as "name/", so that the order is that of the whole names.
            entries = sorted(
                (entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in listing
            )
        for name, entry in entries:
            if name.endswith("/"):
                yield from self._below(folder + name, entry.path)
            elif self._is_file(entry):
                status = entry.stat()
                yield SourceFile(name=folder + name, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return entry.is_file()
        # Unlike the entry's own methods, these two do not fail on a link that leads to itself.
        target = Path(os.path.realpath(entry.path))
        return target.is_relative_to(self.root) and target.is_file()
