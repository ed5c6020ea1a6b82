"""Masks of whole series by a portable model: from the files of a folder to masks on the grid of their images, and out.

Files are read, and segmentations written, in the sandbox, as ingest reads files. A series of DICOM images with a frame
of reference becomes a DICOM SEG, a NIfTI file a NIfTI file, all else PNG files.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from blake3 import blake3

from imaging.annotations.masks.write_files import nifti_bytes, png_bytes
from imaging.dataset.ingest.prepare_files import COLUMNS, item_of
from imaging.dataset.ingest.prepare_files import FUNCTION as PREPARE
from imaging.errors import DataFault, UserFault
from imaging.file_io import write_file
from imaging.formats.nifti import GZIP, HEADER_BYTES
from imaging.formats.peek import FUNCTION as PEEK
from imaging.formats.series import DROP_SLICE
from imaging.formats.series_source import PREFIX, SeriesSource
from imaging.image.source_grid import SourceGrid, grid_of_row, unpack_grids
from imaging.preprocess.inverse import Mask, probabilities_to_source
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from imaging.sources.folder_source import FolderSource
from imaging.sources.patients import Patients
from imaging.sources.protocol import Payload
from models.objectives.segmentation import PROBABILITIES, Segmentation
from models.portable.predictor import Predictor

WRITE_SEG = "imaging.annotations.masks.series_seg:write_series_seg"
"""By its name: highdicom is loaded where a segmentation is written, not here."""

PACKED_BYTES = 2**16
"""The beginning of a packed NIfTI file that holds its header, which is a few hundred bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMask:
    """Mask of one image or volume on its own grid (grid.shape), and the files that it was read of."""

    mask: Mask
    grid: SourceGrid
    payload: Payload
    frame: int
    frame_of_reference_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMask:
    """File that was written of a series, and why it is no DICOM SEG where its images are DICOM, "" where it is."""

    path: Path
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteMasks:
    """Writer of the masks of a folder: `model` names the model and its version in a SEG, `created` is its time."""

    predictor: Predictor
    model: str
    version: str
    created: datetime
    kind: Literal["BINARY", "LABELMAP"] = "BINARY"

    def write(self, source: Path, target: Path) -> Iterator[WrittenMask | DataFault]:
        """Yield the files that were written for each series of a folder, or why there is none.

        Raises UserFault for a model of another kind, and a folder without files.
        """
        if not isinstance(self.predictor.objective, Segmentation):
            raise UserFault(f"the model is one of {self.predictor.objective.name}, which gives no masks")
        names = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
        if not names:
            raise UserFault(f"{source} holds no files: give a folder with the images of one or more series")
        spec = self.predictor.spec
        # Masks are of no patient here: a picture needs none.
        folder = FolderSource(source, Patients(dict.fromkeys(names, "-")))
        grouped = SeriesSource(folder, Pool(PEEK, {}), DROP_SLICE)
        target.mkdir(parents=True, exist_ok=True)
        with Pool(PREPARE, {"spec": spec.model_dump_json()}) as readers, Pool(WRITE_SEG, {}) as writers:
            for series in grouped.scan():
                whole = spec.kind == "volume" or not series.name.startswith(PREFIX)
                payloads = (
                    [grouped.fetch(series)]
                    if whole
                    else [folder.fetch(one) for one in grouped.members[series.name]]
                )
                masks = list[ImageMask]()
                for one in self.predict(payloads, readers):
                    if isinstance(one, DataFault):
                        yield one
                    else:
                        masks.append(one)
                # A segmentation is of one frame of reference, and some scanners give each image its own.
                places: dict[str, list[ImageMask]] = {}
                for mask in masks:
                    places.setdefault(mask.frame_of_reference_uid, []).append(mask)
                name = series.name.removeprefix(PREFIX)
                for number, some in enumerate(places.values(), 1):
                    own = name if len(places) == 1 else f"{name}-{number}"
                    yield from self._written(own, some, target, writers)

    def predict(self, payloads: Sequence[Payload], readers: Pool) -> Iterator[ImageMask | DataFault]:
        """Yield the mask of each image on its own grid, or why there is none."""
        spec = self.predictor.spec
        for payload, outcome in zip(
            payloads, readers.map(map(item_of, ([one] for one in payloads))), strict=True
        ):
            if isinstance(outcome, DataFault):
                yield outcome
                continue
            yield from (DataFault(reason, detail) for _, reason, detail, _ in outcome.value["faults"])
            rows = [dict(zip(COLUMNS, row, strict=True)) for row in outcome.value["rows"]]
            if not rows:
                continue
            grids = unpack_grids(outcome.blobs[2])
            levels = np.frombuffer(outcome.blobs[0], np.uint8).reshape(len(rows), *spec.shape)
            for number, row in enumerate(rows):
                grid = grid_of_row(
                    row | {name: column[number] for name, column in grids.items()},
                    volume=spec.kind == "volume",
                )
                probabilities = self.predictor.predict_levels(levels[number : number + 1])[PROBABILITIES][0]
                mask = probabilities_to_source(probabilities, grid, spec)
                yield ImageMask(
                    mask=mask,
                    grid=grid,
                    payload=payload,
                    frame=row["frame"],
                    frame_of_reference_uid=row["frame_of_reference_uid"],
                )

    def _written(
        self, series: str, masks: Sequence[ImageMask], target: Path, writers: Pool
    ) -> Iterator[WrittenMask]:
        why = ""
        if masks[0].payload.format in ("dicom", "series") and len({one.mask.shape for one in masks}) > 1:
            why = "its images are of several sizes, and a segmentation has one"
        elif masks[0].payload.format in ("dicom", "series"):
            (made,) = writers.map([self._seg_item(series, masks)])
            if isinstance(made, Answer):
                path = target / f"{series}.dcm"
                write_file(path, [bytes(made.blobs[0])])
                yield WrittenMask(path=path)
                return
            why = made.detail or made.reason
        for one in masks:
            name = _plain(one.payload.name.removeprefix(PREFIX)) + (f"-{one.frame}" if one.frame else "")
            if one.grid.affine is not None and len(one.grid.shape) == 3:
                (content,) = one.payload.contents[:1]
                like = _head(content) if one.payload.format == "nifti" else None
                path = target / f"{name}.nii.gz"
                write_file(path, [nifti_bytes(one.mask, one.grid, like)])
                yield WrittenMask(path=path, why=why)
                continue
            planes = one.mask if one.mask.ndim == 3 else one.mask[None]
            for number, plane in enumerate(planes):
                path = target / (f"{name}-{number:04d}.png" if len(planes) > 1 else f"{name}.png")
                write_file(path, [png_bytes(plane)])
                yield WrittenMask(path=path, why=why)

    def _seg_item(self, series: str, masks: Sequence[ImageMask]) -> Item:
        objective = self.predictor.objective
        assert isinstance(objective, Segmentation)
        volume = masks[0].grid if len(masks[0].grid.shape) == 3 else None
        whole = masks[0].mask if volume else np.stack([one.mask for one in masks])
        seed = blake3(whole.tobytes() + f"{series} {self.model} {self.version}".encode()).digest(32)
        header = {
            "series_uid": f"2.25.{int.from_bytes(seed[:16])}",
            "sop_instance_uid": f"2.25.{int.from_bytes(seed[16:])}",
            "created": self.created.isoformat(),
            "algorithm": self.model,
            "version": self.version,
            "description": f"{self.model} {self.version}",
            "classes": list(objective.classes),
            "kind": self.kind,
        }
        files = list(dict.fromkeys(content for one in masks for content in one.payload.contents))
        value: Mapping[str, Any] = {
            "shape": list(whole.shape),
            "header": header,
            "volume": volume and volume.to_json(),
        }
        return Item(value, (np.ascontiguousarray(whole).tobytes(), *files))


def _plain(name: str) -> str:
    """Return the name of a file without folders and suffixes of its format.

    >>> _plain("a/b.nii.gz"), _plain("c/IM.0001")
    ('a_b', 'c_IM.0001')
    """
    joined = name.replace("/", "_")
    for suffix in (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"):
        if joined.lower().endswith(suffix):
            return joined[: -len(suffix)]
    return joined


def _head(content: Path | bytes) -> bytes:
    """Return the header of a NIfTI file; of a packed one no more is inflated."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            content = file.read(PACKED_BYTES)
    packed = content[:2] == GZIP
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content, HEADER_BYTES) if packed else content
