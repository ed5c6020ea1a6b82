"""Owns what a source of images is: something that lists files and hands over the bytes of one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imaging.preprocess.spec import PreprocessSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One listed file. Its name may identify a patient, so it never leaves ingest.

    `tag` changes with the content where a source tells such a thing in its listing: the ETag of S3.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The bytes of one listed file on their way to a reader, and what its source knows beside them.

    `format` is a key of `imaging.formats.table.FORMATS`. Each of `contents` is a file of this machine or the
    bytes themselves; there are several where many files make one volume. What a file cannot say of itself
    (a picture knows no patient) stands in `metadata`: "patient", "label", "rows".
    """

    format: str
    name: str
    contents: tuple[Path | bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()


class Source(Protocol):
    """Where images come from."""

    @property
    def kind(self) -> str:
        """The source's kind, a key of `imaging.sources.open.KINDS`."""
        ...

    def default_spec(self) -> PreprocessSpec:
        """Return how its images are prepared where nobody says otherwise."""
        ...

    def scan(self) -> Iterator[SourceFile]:
        """List the files, in a stable order, without reading them."""
        ...

    def fetch(self, file: SourceFile) -> Payload:
        """Hand over one file; raise DataFault for a bad one, EnvironmentFault where it cannot be reached."""
        ...
