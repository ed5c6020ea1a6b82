"""Owns the table of the kinds of source, and which kind a path is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from imaging.errors import UserFault
from imaging.sources.folder import DicomFolder
from imaging.sources.medmnist import MedMnistFile
from imaging.sources.protocol import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of source: what a person calls it, which paths are of it, how to open it."""

    title: str
    accepts: Callable[[Path], bool]
    open: Callable[[Path], Source]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        DicomFolder.kind: Kind(title="a folder of DICOM files", accepts=Path.is_dir, open=DicomFolder),
        MedMnistFile.kind: Kind(
            title="an .npz file in MedMNIST's layout",
            accepts=lambda path: path.suffix.lower() == ".npz" and path.is_file(),
            open=MedMnistFile,
        ),
    }
)


def open_source(path: str | Path) -> Source:
    """Return the source at a path; raise UserFault where there is none that can be read."""
    place = Path(path).expanduser()
    if not place.exists():
        raise UserFault(f"the source {place} does not exist: give {_titles()}")
    for kind in KINDS.values():
        if kind.accepts(place):
            return kind.open(place)
    raise UserFault(f"the source {place} is of no known kind: give {_titles()}")


def _titles() -> str:
    return " or ".join(kind.title for kind in KINDS.values())
