"""Owns what a source of images is: something that lists files and reads one file into instances."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imaging.preprocess import PreprocessSpec, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One listed file. Its name may identify a patient, so it never leaves ingest."""

    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One image in modality units, with the identifiers that only ingest may see."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    values: NDArray[np.float32]
    content_sha256: str
    window: Window | None = None
    inverted: bool = False
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    label: str | None = None
    split: str | None = None


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

    def read(self, file: SourceFile, modality: str) -> Iterator[Instance]:
        """Read one file; raise DataFault for a bad one and EnvironmentFault for a missing decoder."""
        ...
