"""Archive of the phantom's hospital on the disk: DICOM files of a day, masks of lesions, and the label table."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from imaging.phantom.anatomy import paint, sample_chest
from imaging.phantom.ct_object import SliceIdentity, ct_object
from imaging.phantom.schedule import PhantomSpec, Study, studies, uid

DICOM, MASKS, LABELS = "dicom", "masks", "labels.csv"
HEAD = ("SOPInstanceUID", "label")
PART_STUDIES = 64
"""Studies that a process paints at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomDay:
    """Counts of what a day has added; `broken` has the files by the reason for which ingest must refuse them."""

    day: int
    files: int
    images: int
    patients: int
    labels: Mapping[str, int]
    broken: Mapping[str, int]
    ignored: Mapping[str, int]
    labels_without_image: int
    images_without_label: int
    images_in_conflict: int


def write_phantom(folder: Path, spec: PhantomSpec, day: int = 1, workers: int = 1) -> PhantomDay:
    """Write what a day adds to the archive below `folder`; the same seed and day write the same bytes.

    `dicom/` has the files as a hospital exports them, `masks/UID.npy` (rows, columns) the lesions, and `labels.csv`
    grows from day to day. Large archives are painted by several processes.
    """
    todays, write = enumerate(studies(spec, day)), partial(_write_study, folder, spec)
    if workers == 1:
        written = list(map(write, todays))
    else:
        with ProcessPoolExecutor(workers) as painters:
            written = list(painters.map(write, todays, chunksize=PART_STUDIES))
    images = [image for of_study in written for image in of_study]
    broken = _write_broken(folder / DICOM / f"day{day}", spec, images)
    _save(folder / DICOM / "README.txt", b"Exported from the archive of Harbour Hospital.\n")
    _save(folder / DICOM / "DICOMDIR", b"\0" * 128 + b"DICM")
    rows, troubles = _labels(spec, images, day)
    _write_labels(folder / LABELS, rows, first=day == 1)
    return PhantomDay(
        day=day,
        files=len(images) + sum(broken.values()) + (2 if day == 1 else 0),
        images=len(images),
        patients=len({image.study.patient.number for image in images}),
        labels={name: sum(image.study.label == name for image in images) for name in ("lesion", "normal")},
        broken=broken,
        ignored={"not-dicom": 1, "dicomdir": 1},
        labels_without_image=troubles,
        images_without_label=troubles,
        images_in_conflict=troubles,
    )


def _write_study(folder: Path, spec: PhantomSpec, todays: tuple[int, Study]) -> list[SliceIdentity]:
    """Write the images of a study, which has a place among those of the day."""
    written, (place, study) = list[SliceIdentity](), todays
    for image, dataset, mask in _paint_study(spec, study):
        name = _export_name(study, place * spec.slices + image.number + 1)
        _save(folder / DICOM / name, _file_bytes(dataset))
        if mask.any():
            _save(folder / MASKS / f"{image.instance_uid}.npy", _array_bytes(mask))
        written.append(image)
    return written


def _paint_study(
    spec: PhantomSpec, study: Study
) -> Iterator[tuple[SliceIdentity, Dataset, NDArray[np.bool_]]]:
    """Yield the images of a study, each with the mask of its lesion."""
    number, who = study.number, study.patient
    chest = sample_chest(np.random.default_rng([spec.seed, who.number, 1]), lesion=who.lesion)
    rng = np.random.default_rng([spec.seed, who.number, 2, number])
    series_uid, frame_uid = uid(spec, "series", number, study.uid), uid(spec, "frame", study.uid)
    for place in range(spec.slices):
        hu, mask = paint(chest, spec.size_px, rng)
        identity = SliceIdentity(
            study=study,
            number=place,
            series_uid=series_uid,
            instance_uid=uid(spec, "instance", study.uid, place),
            frame_uid=frame_uid,
        )
        yield identity, ct_object(hu, identity), mask


def _export_name(study: Study, number: int) -> str:
    """Name a file as exports do: by the person, and without an extension."""
    who = study.patient
    return f"{who.name.replace('^', '_').upper()}_{who.birth_date}_{who.number}/{study.date}/IM{number:05d}"


def _write_broken(folder: Path, spec: PhantomSpec, images: Sequence[SliceIdentity]) -> dict[str, int]:
    """Write files as they go wrong in practice, each made from a different image of the day."""
    kinds: dict[str, Callable[[Dataset], bytes]] = {
        "truncated": lambda dataset: _file_bytes(dataset)[:-1000],
        "no-pixels": _without_pixels,
        "wrong-modality": _as_mr,
        "duplicate-instance": _file_bytes,
    }
    # Far apart, so that they differ in vendor and encoding.
    for (reason, make), image in zip(kinds.items(), images[:: len(images) // len(kinds)], strict=False):
        _, dataset, _ = next(islice(_paint_study(spec, image.study), image.number, None))
        _save(folder / f"{reason}-{image.study.number}", make(dataset))
    return dict.fromkeys(kinds, 1)


def _without_pixels(dataset: Dataset) -> bytes:
    del dataset.PixelData
    return _file_bytes(dataset)


def _as_mr(dataset: Dataset) -> bytes:
    dataset.Modality, dataset.SOPClassUID = "MR", MRImageStorage
    return _file_bytes(dataset)


def _labels(
    spec: PhantomSpec, images: Sequence[SliceIdentity], day: int
) -> tuple[list[tuple[str, str]], int]:
    rows = [(image.instance_uid, image.study.label) for image in images]
    if day > 1:
        return rows, 0
    # The first image has no label, the second has two, and one label has no image.
    contrary = "normal" if rows[1][1] == "lesion" else "lesion"
    return [*rows[1:], (rows[1][0], contrary), (uid(spec, "nowhere"), "normal")], 1


def _write_labels(path: Path, rows: list[tuple[str, str]], *, first: bool) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEAD, *rows] if first else rows)
    before = "" if first else path.read_text()
    if text.getvalue() not in before:
        _save(path, (before + text.getvalue()).encode())


def _file_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _array_bytes(array: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _save(path: Path, content: bytes) -> None:
    # What is there already keeps its time: for a scan it has not changed.
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
