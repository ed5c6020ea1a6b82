"""Masks of a request: which classes are read, and the table that says which file is the mask of which image."""

from collections.abc import Iterable
from pathlib import Path

from imaging.annotations.masks.known_files import KnownFiles
from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.mask_folder import FUNCTION, read_mask_folder
from imaging.annotations.masks.mask_table import read_mask_table
from imaging.dataset.ingest.mask_reading import MaskInput
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Pool
from services.flow_requests import IngestRequest

KNOWN_FOLDER = "mask-files"
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


def mask_classes(request: IngestRequest) -> MaskClasses:
    """Return the classes of a request, of which each is NAME or NAME=VALUE; raise UserFault for others.

    >>> mask_classes(IngestRequest(masks="m.csv", mask_classes=("lung=255", "heart"))).values
    {0: 0, 255: 1, 2: 2}
    """
    names, values = [], {0: 0}
    for number, given in enumerate(request.mask_classes, 1):
        name, _, value = given.partition("=")
        if value and not value.strip().isdecimal():
            raise UserFault(
                f"mask class {given!r}: behind '=' comes the value that it has in NIfTI and PNG masks"
            )
        names.append(name.strip())
        values[int(value) if value else number] = number
    if len(values) <= len(names):
        raise UserFault(
            f"two of the mask classes {list(request.mask_classes)} have one value: give each its own"
        )
    stated = any("=" in given for given in request.mask_classes)
    return MaskClasses(names=tuple(names), values=values if stated else {})


def patient_table(request: IngestRequest) -> Path | None:
    """Return the table that names the patients of pictures and NIfTI files: that of the labels, or of the masks."""
    place = request.labels or request.masks
    path = Path(place).expanduser() if place else None
    return None if path is None or (not request.labels and not is_table(path)) else path


def is_table(path: Path) -> bool:
    """Return whether a path of masks is a table, and no folder or file of masks."""
    return path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()


def check_masks(request: IngestRequest) -> None:
    """Raise UserFault for masks that cannot be read; nothing of them is kept."""
    path = Path(request.masks or "").expanduser()
    if is_table(path):
        read_masks_of(request, Pseudonyms(bytes(32)))
        return
    mask_classes(request)
    if not path.exists():
        raise UserFault(f"no masks at {path}: give --masks a CSV file, or a folder or file of masks")


def read_masks_of(
    request: IngestRequest, pseudonyms: Pseudonyms, images: Iterable[str] = (), folder: Path | None = None
) -> MaskInput | None:
    """Return the masks of a request, or None where it has none; `images` are the names of the source's files.

    What is known of the files of masks is in `folder`, that of RADLOOP_HOME; without one they are read.
    """
    if not request.masks:
        return None
    path, classes = Path(request.masks).expanduser(), mask_classes(request)
    known = KnownFiles(folder and folder / KNOWN_FOLDER / f"{request.dataset}.json", pseudonyms)
    if is_table(path):
        table = read_mask_table(path, pseudonyms, classes)
    else:
        with Pool(FUNCTION, {}) as pool:
            table = read_mask_folder(path, pseudonyms, images, pool.map, known)
    return MaskInput(table=table, classes=classes, pseudonyms=pseudonyms, known=known)
