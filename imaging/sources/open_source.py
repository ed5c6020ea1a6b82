"""Table of the kinds of source, and the opening of a source by its address."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from imaging.errors import UserFault
from imaging.sources.archive import Archive
from imaging.sources.folder_source import FolderSource
from imaging.sources.medmnist_file import MedMnistFile
from imaging.sources.patients import Patients, read_patients
from imaging.sources.protocol import DICOMWEB, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of source: its description for a person, a test for its addresses, and how to open one."""

    title: str
    accepts: Callable[[str], bool]
    open: Callable[[str, Patients], Source]


def _s3_prefix(address: str, patients: Patients) -> Source:
    # Loaded here, as below: clients of servers take a third of a second, which a folder does not need.
    from imaging.sources.s3_prefix import S3Prefix

    return S3Prefix(address, patients)


def _dicomweb(address: str, _: Patients) -> Source:
    from imaging.sources.dicomweb import DicomWeb

    return DicomWeb(address)


def _file(*suffixes: str) -> Callable[[str], bool]:
    return lambda address: address.lower().endswith(suffixes) and Path(address).is_file()


KINDS: Mapping[str, Kind] = {
    "folder": Kind(
        title="a folder of DICOM, NIfTI or picture files",
        accepts=lambda address: Path(address).is_dir(),
        open=FolderSource,
    ),
    "zip": Kind(
        title="a .zip file of them",
        accepts=_file(".zip"),
        open=lambda address, patients: Archive("zip", address, patients),
    ),
    "tar": Kind(
        title="a .tar, .tar.gz, .tar.xz or .tar.bz2 file of them",
        accepts=_file(".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2"),
        open=lambda address, patients: Archive("tar", address, patients),
    ),
    "s3": Kind(
        title="s3://BUCKET/PREFIX",
        accepts=lambda address: address.startswith("s3://"),
        open=_s3_prefix,
    ),
    "dicomweb": Kind(
        title="dicomweb+https://HOST:PORT/dicom-web",
        accepts=lambda address: address.startswith(DICOMWEB),
        open=_dicomweb,
    ),
    "medmnist": Kind(
        title="an .npz file in MedMNIST's layout",
        accepts=_file(".npz"),
        open=lambda address, _: MedMnistFile(address),
    ),
}


def open_source(address: str | Path, table: Path | None = None, *, slides: bool = False) -> Source:
    """Return the source at an address; raise UserFault where there is none that can be read.

    `table` is the CSV with labels: its columns `file` and `PatientID` name the patients of pictures and NIfTI files.
    With `slides` the files of slide scanners are pictures too.
    """
    place = str(address)
    if "://" not in place:
        place = str(Path(place).expanduser())
        if not Path(place).exists():
            raise UserFault(f"the source {place} does not exist: give {_titles()}")
    for kind in KINDS.values():
        if kind.accepts(place):
            return kind.open(place, replace(read_patients(table), slides=slides))
    # An address with a scheme may carry credentials.
    shown = place.partition("://")[0] + "://..." if "://" in place else place
    raise UserFault(f"the source {shown} is of no known kind: give {_titles()}")


def _titles() -> str:
    return " or ".join(kind.title for kind in KINDS.values())
