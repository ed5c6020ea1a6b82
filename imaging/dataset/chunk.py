"""Owns one chunk of ingest: some source files in, one shard and their rows out again and again."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imaging.dataset.shard import write_shard
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.errors import DataFault
from imaging.preprocess import PreprocessSpec, prepare
from imaging.sources.protocol import Instance, Source, SourceFile
from imaging.store.folder import FolderStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training item: pseudonyms, where its prepared pixels are, and what may be known about it."""

    instance_key: str
    series_key: str
    study_key: str
    patient_key: str
    source_key: str
    source_size: int
    source_mtime_ns: int
    content_sha256: str
    pixel_sha256: str
    shard: str
    row: int
    source_label: str | None
    source_split: str | None
    modality: str
    manufacturer: str
    rows: int
    columns: int
    spacing_mm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One source file that gave no example, and why."""

    source_key: str
    source_size: int
    source_mtime_ns: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkResult:
    """What became of the files of one chunk."""

    examples: tuple[Example, ...]
    refusals: tuple[Refusal, ...]


def prepare_chunk(
    source: Source,
    files: Sequence[SourceFile],
    spec: PreprocessSpec,
    pseudonyms: Pseudonyms,
    store: FolderStore,
) -> ChunkResult:
    """Read, check and prepare some files, and write their images as one shard."""
    images: list[NDArray[np.uint8]] = []
    drafts: list[Example] = []
    refusals = []
    for file in files:
        try:
            for instance, image in _prepared(source, file, spec):
                # The full-size values are let go here, so that memory does not grow with the chunk.
                drafts.append(_example(file, instance, pseudonyms, row=len(images)))
                images.append(image)
        except DataFault as fault:
            refusals.append(_refusal(file, fault, pseudonyms))
    if not images:
        return ChunkResult(examples=(), refusals=tuple(refusals))
    shard = write_shard(store, np.stack(images))
    examples = tuple(replace(draft, shard=shard) for draft in drafts)
    return ChunkResult(examples=examples, refusals=tuple(refusals))


def _prepared(
    source: Source, file: SourceFile, spec: PreprocessSpec
) -> Iterator[tuple[Instance, NDArray[np.uint8]]]:
    for instance in source.read(file, spec.modality):
        window = instance.window if spec.window == "file" else spec.window
        if window is None:
            raise DataFault(
                "no-window", "no Window Center and Width; give a fixed window in the configuration"
            )
        yield instance, prepare(instance.values, window, spec.size_px, inverted=instance.inverted)


def _refusal(file: SourceFile, fault: DataFault, pseudonyms: Pseudonyms) -> Refusal:
    return Refusal(
        source_key=pseudonyms.key("file", file.name),
        source_size=file.size_bytes,
        source_mtime_ns=file.mtime_ns,
        reason=fault.reason,
        detail=fault.detail,
    )


def _example(file: SourceFile, instance: Instance, pseudonyms: Pseudonyms, row: int) -> Example:
    height, width = instance.values.shape
    spacing = instance.attributes.get("spacing_mm")
    return Example(
        instance_key=pseudonyms.key("instance", instance.sop_instance_uid),
        series_key=pseudonyms.key("series", instance.series_uid),
        study_key=pseudonyms.key("study", instance.study_uid),
        patient_key=pseudonyms.key("patient", instance.patient_id),
        source_key=pseudonyms.key("file", file.name),
        source_size=file.size_bytes,
        source_mtime_ns=file.mtime_ns,
        content_sha256=instance.content_sha256,
        pixel_sha256=hashlib.sha256(instance.values.tobytes()).hexdigest(),
        shard="",
        row=row,
        source_label=instance.label,
        source_split=instance.split,
        modality=str(instance.attributes.get("modality", "")),
        manufacturer=str(instance.attributes.get("manufacturer", "")),
        rows=height,
        columns=width,
        spacing_mm=float(spacing) if spacing is not None else None,
    )
