"""Owns what a worker makes of one parcel: prepared images, and drafts of their rows with original identifiers.

It runs in the sandbox; what it returns goes to ingest, which gives the identifiers their pseudonyms.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.buffer import FileBuffer
from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault
from imaging.formats.dicom import HEAD_BYTES, identifiers_of, read_dicom
from imaging.formats.table import FORMATS, Reader
from imaging.instance import Instance
from imaging.prepare import prepare
from imaging.prepare_volume import prepare_volume
from imaging.preprocess import PreprocessSpec
from imaging.sandbox.pool import Item
from imaging.sandbox.process import Answer
from imaging.sources.protocol import Parcel
from imaging.sources.work import Outcome, Run

FUNCTION = "imaging.dataset.draft:draft_parcel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is known of one prepared image before its identifiers are replaced."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    frame: int
    content_sha256: str
    pixel_sha256: str
    source_label: str | None
    source_split: str | None
    modality: str
    manufacturer: str
    rows: int
    columns: int
    spacing_mm: float | None
    findings: str


@dataclass(frozen=True, slots=True)
class Drafts:
    """What became of one parcel: drafts with their images, or why there are none and which study lost them."""

    made: tuple[tuple[Draft, NDArray[np.uint8]], ...] = ()
    fault: DataFault | None = None
    study_uid: str = ""


def draft_parcel(
    setup: Mapping[str, Any],
    value: Mapping[str, Any],
    blobs: Sequence[bytes | Path],
    formats: Mapping[str, Reader] = FORMATS,
) -> tuple[Any, Sequence[bytes]]:
    """Read and prepare one parcel; a `Function` of the sandbox."""
    spec = _spec(setup["spec"])
    told = tuple((name, str(text)) for name, text in value["told"])
    parcel = Parcel(format=value["format"], name=value["name"], contents=tuple(blobs), told=told)
    try:
        made = [(asdict(_draft(one)), _prepared(one, spec)) for one in _instances(parcel, spec, formats)]
    except DataFault as fault:
        return {"fault": [fault.reason, fault.detail], "study": _study(parcel)}, ()
    return {"drafts": [draft for draft, _ in made]}, [image.tobytes() for _, image in made]


def as_drafts(outcome: Outcome, spec: PreprocessSpec) -> Drafts:
    """Return what the sandbox said of a parcel."""
    if isinstance(outcome, DataFault):
        return Drafts(fault=outcome)
    if "fault" in outcome.value:
        reason, detail = outcome.value["fault"]
        return Drafts(fault=DataFault(reason, detail), study_uid=outcome.value["study"])
    images = (np.frombuffer(blob, np.uint8).reshape(spec.shape) for blob in outcome.blobs)
    drafts = (Draft(**draft) for draft in outcome.value["drafts"])
    return Drafts(made=tuple(zip(drafts, images, strict=True)))


def in_process(setup: Mapping[str, Any], formats: Mapping[str, Reader] = FORMATS) -> Run:
    """Return what does the sandbox's work here, without its protection: for tests and for measuring."""

    def run(items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            value, blobs = draft_parcel(setup, item.value, item.blobs, formats)
            yield Answer(value, tuple(memoryview(blob) for blob in blobs))

    return run


@cache
def _spec(json: str) -> PreprocessSpec:
    return PreprocessSpec.model_validate_json(json)


@cache
def _buffer() -> FileBuffer:
    """Keep one buffer for the life of the worker."""
    return FileBuffer()


def _instances(parcel: Parcel, spec: PreprocessSpec, formats: Mapping[str, Reader]) -> Iterator[Instance]:
    if parcel.format == "dicom" and isinstance(parcel.contents[0], Path):
        return read_dicom(_buffer().load(parcel.contents[0], LIMITS.file_bytes), spec.modality)
    return formats[parcel.format](parcel, spec.modality)


def _prepared(instance: Instance, spec: PreprocessSpec) -> NDArray[np.uint8]:
    image = instance.image
    if image.stored.ndim == 2 and spec.kind == "slice":
        return prepare(image, spec)
    if image.stored.ndim == 3 and spec.kind == "volume":
        return prepare_volume(image, spec)
    found = "a volume" if image.stored.ndim == 3 else "a slice"
    raise DataFault("unsupported", f"the image is {found}, the configuration asks for kind {spec.kind!r}")


def _study(parcel: Parcel) -> str:
    if parcel.format not in ("dicom", "series"):
        return ""
    content = parcel.contents[0]
    head = _buffer().head(content, HEAD_BYTES)[0] if isinstance(content, Path) else content
    return str(identifiers_of(head).get("StudyInstanceUID", ""))


def _draft(instance: Instance) -> Draft:
    *_, height, width = instance.image.stored.shape
    spacing = instance.attributes.get("spacing_mm")
    return Draft(
        patient_id=instance.patient_id,
        study_uid=instance.study_uid,
        series_uid=instance.series_uid,
        sop_instance_uid=instance.sop_instance_uid,
        frame=instance.frame,
        content_sha256=instance.content_sha256,
        pixel_sha256=hashlib.sha256(np.ascontiguousarray(instance.image.values).data).hexdigest(),
        source_label=instance.label,
        source_split=instance.split,
        modality=str(instance.attributes.get("modality", "")),
        manufacturer=str(instance.attributes.get("manufacturer", "")),
        rows=height,
        columns=width,
        spacing_mm=float(spacing) if spacing is not None else None,
        findings=" ".join(instance.findings),
    )
