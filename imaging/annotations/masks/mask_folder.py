"""Folder or file of masks without a table: DICOM masks name the series that they are of, others are called as images.

A NIfTI or PNG mask is of the image that has its name, in the same folder below the source, whatever their suffixes; the
`_0000` of the first channel of nnU-Net's images does not count.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydicom.dataset import Dataset

from imaging.annotations.masks.known_files import KnownFiles
from imaging.annotations.masks.mask_table import MaskLine, MaskTable, table_of
from imaging.dicom.limits import LIMITS
from imaging.dicom.parse import parse, reading
from imaging.errors import DataFault, UserFault
from imaging.file_io import FileBuffer
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.messages import Blob
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.protocol import SUFFIXES, format_of

FUNCTION = "imaging.annotations.masks.mask_folder:peek_series"
FIRST_CHANNEL = "_0000"
SERIES = "series"
"""Fact of a DICOM mask that is kept: the pseudonyms of the series that it is of."""

Run = Callable[[Iterable[Item]], Iterator[Answer | DataFault]]


def read_mask_folder(
    path: Path, pseudonyms: Pseudonyms, images: Iterable[str], run: Run, known: KnownFiles | None = None
) -> MaskTable:
    """Return the table of the masks below a folder, or of one file; its lines are the files in their order.

    `images` are the names of the files of the source. `run` calls `peek_series` for those that are not `known`. Raises
    UserFault for a folder with DICOM masks beside others, since these are joined otherwise.
    """
    folder = path if path.is_dir() else path.parent
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    names = [one.relative_to(folder).as_posix() for one in files]
    dicom = [name for name in names if format_of(name) == "dicom"]
    if dicom and len(dicom) < len(names):
        raise UserFault(
            f"{path} has {len(dicom)} DICOM masks and {len(names) - len(dicom)} others: these are joined by the series "
            "that they name, those by the names of their files; give --masks a table, or one folder of one kind"
        )
    numbered = list(enumerate(names, 1))
    if not dicom:
        named = _by_name(images)
        rows = [
            (image, MaskLine(name, None, line))
            for line, name in numbered
            for image in named.get(_stem(name), [name])
        ]
        keys = pa.array(pseudonyms.keys("file", [image for image, _ in rows]), pa.string())
        return table_of(folder, "file", keys, [line for _, line in rows])
    known = known or KnownFiles(None, pseudonyms)
    series: dict[str, list[str]] = {name: known.get(folder / name, SERIES) for name in names}
    new = [name for name in names if series[name] is None]
    for name, outcome in zip(new, run(Item({}, (folder / name,)) for name in new), strict=True):
        if isinstance(outcome, Answer):
            series[name] = list(pseudonyms.keys("series", outcome.value))
            known.add(folder / name, SERIES, series[name])
        else:
            # A file that cannot be read stays a line of no image.
            series[name] = [pseudonyms.key("series", name)]
    lines = [(key, MaskLine(name, None, line)) for line, name in numbered for key in series[name]]
    keys = pa.array([key for key, _ in lines], pa.string())
    return table_of(folder, "series", keys, [line for _, line in lines])


def peek_series(
    _: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[Blob]]:
    """Return the SeriesInstanceUIDs that a segmentation or structure set is of; a `Function` of the sandbox."""
    dataset = parse(bytes(FileBuffer().load(blobs[0], LIMITS.file_bytes)))
    with reading("unreadable", "the referenced series"):
        return sorted({str(item.SeriesInstanceUID) for item in _series_items(dataset)}), ()


def _series_items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the items that name a series: of SEG (PS3.3 C.12.4), and of RTSTRUCT (PS3.3 C.8.8.5)."""
    yield from dataset.get("ReferencedSeriesSequence") or []
    for place in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in place.get("RTReferencedStudySequence") or []:
            yield from study.get("RTReferencedSeriesSequence") or []


def _by_name(images: Iterable[str]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for image in images:
        named.setdefault(_stem(image).removesuffix(FIRST_CHANNEL), []).append(image)
    return named


def _stem(name: str) -> str:
    lower = name.lower()
    suffix = max((one for one in (*SUFFIXES, ".dcm") if lower.endswith(one)), key=len, default="")
    return name[: len(name) - len(suffix)]
