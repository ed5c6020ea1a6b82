"""Owns one chunk of ingest: some source files in, one shard and their rows out again and again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imaging.dataset.draft import Draft, as_drafts
from imaging.dataset.shard import write_shard
from imaging.deidentify.pseudonyms import Pseudonyms
from imaging.errors import DataFault
from imaging.preprocess import PreprocessSpec
from imaging.sources.protocol import Source, SourceFile
from imaging.sources.work import Run, work
from imaging.store.folder import FolderStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training item: pseudonyms, where its prepared pixels are, and what may be known about it.

    `instance_key` is its own; `object_key` that of the DICOM object, of which it may be one frame. `findings` are
    keys of `imaging.dicom.findings.FINDINGS` with spaces between them. `patient_variant` is the patient's pseudonym
    under the other policy about variants of a PatientID; empty in rows that are older than the policy.
    """

    instance_key: str
    object_key: str
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
    frame: int
    rows: int
    columns: int
    spacing_mm: float | None
    findings: str
    patient_variant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One source file that gave no example, and why; `study_key` is empty where its study cannot be told."""

    source_key: str
    source_size: int
    source_mtime_ns: int
    study_key: str
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
    run: Run,
) -> ChunkResult:
    """Fetch some files, have them read and prepared by `run`, and write their images as one shard.

    Images are held until the shard is written, files only while they are worked on.
    """
    images: list[NDArray[np.uint8]] = []
    drafts: list[Example] = []
    refusals = []
    for file, outcome in work(source, files, run):
        found = as_drafts(outcome, spec)
        if found.fault is not None:
            refusals.append(_refusal(file, found.fault, found.study_uid, pseudonyms))
        for draft, image in found.made:
            drafts.append(_example(file, draft, pseudonyms, row=len(images)))
            images.append(image)
    if not images:
        return ChunkResult(examples=(), refusals=tuple(refusals))
    shard = write_shard(store, np.stack(images))
    examples = tuple(replace(draft, shard=shard) for draft in drafts)
    return ChunkResult(examples=examples, refusals=tuple(refusals))


def _refusal(file: SourceFile, fault: DataFault, study_uid: str, pseudonyms: Pseudonyms) -> Refusal:
    return Refusal(
        source_key=pseudonyms.key("file", file.name),
        source_size=file.size_bytes,
        source_mtime_ns=file.mtime_ns,
        study_key=pseudonyms.key("study", study_uid) if study_uid else "",
        reason=fault.reason,
        detail=fault.detail,
    )


def _example(file: SourceFile, draft: Draft, pseudonyms: Pseudonyms, row: int) -> Example:
    # A frame is an example of its own, and labels name the object that it is of.
    frame = f"/{draft.frame}" if draft.frame else ""
    return Example(
        instance_key=pseudonyms.key("instance", draft.sop_instance_uid + frame),
        object_key=pseudonyms.key("instance", draft.sop_instance_uid),
        series_key=pseudonyms.key("series", draft.series_uid),
        study_key=pseudonyms.key("study", draft.study_uid),
        patient_key=pseudonyms.key("patient", draft.patient_id),
        source_key=pseudonyms.key("file", file.name),
        source_size=file.size_bytes,
        source_mtime_ns=file.mtime_ns,
        content_sha256=draft.content_sha256,
        pixel_sha256=draft.pixel_sha256,
        shard="",
        row=row,
        source_label=draft.source_label,
        source_split=draft.source_split,
        modality=draft.modality,
        manufacturer=draft.manufacturer,
        frame=draft.frame,
        rows=draft.rows,
        columns=draft.columns,
        spacing_mm=draft.spacing_mm,
        findings=draft.findings,
        patient_variant=pseudonyms.otherwise(draft.patient_id),
    )
