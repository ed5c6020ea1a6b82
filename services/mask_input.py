"""Masks of a request: which classes are read, and the table that says which file is the mask of which image."""

from pathlib import Path

from imaging.annotations.masks.mask import MaskClasses
from imaging.annotations.masks.mask_table import read_mask_table
from imaging.dataset.ingest.mask_reading import MaskInput
from imaging.errors import UserFault
from imaging.pseudonyms import Pseudonyms
from services.flow_requests import IngestRequest


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


def mask_table_path(request: IngestRequest) -> Path | None:
    """Return the path of the mask table, None where a request has no masks."""
    return Path(request.masks).expanduser() if request.masks else None


def read_masks_of(request: IngestRequest, pseudonyms: Pseudonyms) -> MaskInput | None:
    """Return the masks of a request, or None where it has none."""
    path = mask_table_path(request)
    if path is None:
        return None
    classes = mask_classes(request)
    table = read_mask_table(path, pseudonyms, classes)
    volumes = request.preprocess is not None and request.preprocess.kind == "volume"
    if volumes and table.level == "instance":
        raise UserFault(
            f"{path.name} names images by SOPInstanceUID, and a volume is made of many: name it by SeriesInstanceUID "
            "or file, or take in slices (kind: slice)"
        )
    return MaskInput(table=table, classes=classes, pseudonyms=pseudonyms)
