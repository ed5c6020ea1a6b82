"""Tiny synthetic inputs that several test modules share: rows, images, DICOM files, versions and a model."""

import csv
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, helper
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from imaging.annotations.finding_table import FindingTables
from imaging.annotations.label_table import LabelTable
from imaging.dataset.split.fingerprint import ZERO
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.schemas import EXAMPLES, FINGERPRINT_BYTES, REFUSALS, TABLES
from imaging.dataset.tables.shard import write_shard
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.publish import Recipe, build_version, publish
from imaging.errors import DataFault
from imaging.formats.readers import FORMATS
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.image.source_grid import NO_AFFINE
from imaging.pixel_digests import pixel_digest
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.dispatch import Run
from imaging.sources.protocol import Payload, Source, SourceFile
from imaging.statistics.classification import MEASURES
from imaging.statistics.intervals import Measure
from imaging.statistics.verdict import Verdict
from imaging.store.protocol import Store
from models.config import TrainConfig
from models.objectives.classification import Classification
from services.mlflow.registry import Registered, model_tags, register
from services.mlflow.runs import start_run
from services.settings import Settings
from tests.sandbox_pools import in_process

GREY = PreprocessSpec.grey_levels(16)
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
EXAMPLE: Mapping[str, Any] = {
    "instance_key": "i0",
    "object_key": "o0",
    "series_key": "e0",
    "study_key": "s0",
    "patient_key": "p0",
    "patient_variant": "",
    "site_key": "",
    "source_key": "f0",
    "source_size": 1,
    "source_mtime_ns": 1,
    "source_tag": "",
    "content_blake3": "c0",
    "pixel_blake3": "x0",
    "fingerprint": bytes([ZERO]) * FINGERPRINT_BYTES,
    "spec": GREY.digest,
    "shard": "",
    "row": 0,
    "source_label": None,
    "source_split": None,
    "modality": "CT",
    "manufacturer": "ACME",
    "model": "",
    "body_part": "",
    "frame": 0,
    "rows": 16,
    "columns": 16,
    "spacing_mm": 0.5,
    "kvp": None,
    "findings": "",
    "slices": 1,
    "slice_spacing": None,
    "row_spacing": 0.5,
    "column_spacing": 0.5,
    "affine": NO_AFFINE,
    "frame_of_reference_key": "",
    "slice_keys": "",
}


def example(number: int, **changes: Any) -> dict[str, Any]:
    """Return the row of an example of a patient of its own; equal numbers give equal rows."""
    named = [name for name in EXAMPLE if name.endswith("_key") and EXAMPLE[name]]
    keys = {name: f"{EXAMPLE[name][0]}{number}" for name in named}
    return {**EXAMPLE, **keys, "pixel_blake3": f"x{number}", "row": number} | changes


def refusal(number: int, reason: str = "truncated", **changes: Any) -> dict[str, Any]:
    """Return the row of a refused file."""
    source = {"source_key": f"f{number}", "source_size": 1, "source_mtime_ns": 1, "source_tag": ""}
    return {**source, "study_key": "", "spec": GREY.digest, "reason": reason, "detail": ""} | changes


def examples(*rows: Mapping[str, Any]) -> pa.Table:
    """Return rows of examples as a table."""
    return pa.Table.from_pylist([dict(row) for row in rows], EXAMPLES)


def refusals(*rows: Mapping[str, Any]) -> pa.Table:
    """Return rows of refused files as a table."""
    return pa.Table.from_pylist([dict(row) for row in rows], REFUSALS)


def instance(number: int, **changes: Any) -> Instance:
    """Return a 16 x 16 image of one grey level, of a patient of its own."""
    made = Instance(
        patient_id=f"P{number}",
        study_uid=f"1.{number}",
        series_uid=f"2.{number}",
        sop_instance_uid=f"3.{number}",
        image=plain_image(number % 256),
        content_blake3=f"{number:064x}",
        pixel_blake3="",
        label="odd" if number % 2 else "even",
        attributes={"modality": "OT", "manufacturer": "ACME", "spacing_mm": 0.5},
    )
    made = replace(made, **changes)
    return made if made.pixel_blake3 else replace(made, pixel_blake3=pixel_digest(made.image.stored).hex())


def plain_image(level: int, **changes: Any) -> Image:
    """Return a 16 x 16 image of one stored value."""
    return replace(Image(stored=np.full((16, 16), level, np.uint8)), **changes)


@dataclass
class MemorySource:
    """Files by name, each of which reads as some instances or as a fault; `read_names` has the files that were read."""

    files: dict[str, list[Instance] | DataFault]
    mtimes: dict[str, int] = field(default_factory=dict)
    read_names: list[str] = field(default_factory=list)
    kind: str = "memory"

    def default_spec(self) -> PreprocessSpec:
        return GREY

    def scan(self) -> Iterator[SourceFile]:
        for name in self.files:
            yield SourceFile(name=name, size_bytes=1, mtime_ns=self.mtimes.get(name, 1))

    def fetch(self, file: SourceFile) -> Payload:
        return Payload(format=self.kind, name=file.name, contents=(b"",))

    def run(self, spec: PreprocessSpec = GREY) -> Run:
        """Return a run that reads these files in this process, without the sandbox."""
        return in_process({"spec": spec.model_dump_json()}, {self.kind: self._read})

    def _read(self, payload: Payload, modality: str) -> Iterator[Instance]:
        self.read_names.append(payload.name)
        content = self.files[payload.name]
        if isinstance(content, DataFault):
            raise content
        yield from content


def read_file(source: Source, file: SourceFile, modality: str = "CT") -> list[Instance]:
    """Fetch a file and read it here, without the sandbox; the images are copies, valid for longer than a reader's."""
    payload = source.fetch(file)
    return [
        replace(one, image=replace(one.image, stored=one.image.stored.copy()))
        for one in FORMATS[payload.format](payload, modality)
    ]


def recipe(**changes: Any) -> Recipe:
    """Return a recipe whose labels come with the examples."""
    return replace(Recipe(dataset="d", spec=GREY, key_fingerprint="k", shares=SHARES), **changes)


def finding_tables(names: Sequence[str], codes: Mapping[str, str]) -> FindingTables:
    """Return a table of findings by object key; a code has a character for each: 1, 0 or ?."""
    table = LabelTable(
        level="instance",
        keys=pa.array(list(codes), pa.string()),
        values=pa.array(list(codes.values()), pa.string()),
        lines=pa.array(range(2, 2 + len(codes)), pa.int64()),
        conflicts=pa.array([], pa.string()),
    )
    return FindingTables(names=tuple(names), tables=(table,), files=("labels.csv",), starts=(0,))


def findings_version(store: Store, patients: int = 40, name: str = "f", unknown: int = 7) -> DatasetVersion:
    """Publish a dataset of findings: "left" and "right" halves that are bright; of one in `unknown` "right" is open."""
    images = np.full((patients, 16, 16), 60, np.uint8)
    truth = np.array([[n % 2, (n // 2) % 2] for n in range(patients)])
    images[truth[:, 0] == 1, :, :8] = images[truth[:, 1] == 1, :, 8:] = 190
    shard = write_shard(store, images)
    rows = [example(n, patient_key=f"p{n:03d}", shard=shard, row=n) for n in range(patients)]
    codes = {
        f"o{n}": f"{left}?" if n % unknown == 0 else f"{left}{right}"
        for n, (left, right) in enumerate(truth.tolist())
    }
    tables = finding_tables(("left", "right"), codes)
    version = built(store, rows, by=recipe(dataset=name, findings=tables))
    publish(version, None)
    return version


def built(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    bad: Sequence[Mapping[str, Any]] = (),
    splits: Mapping[str, str] = MappingProxyType({}),
    by: Recipe | None = None,
) -> DatasetVersion:
    """Write a version of some rows, which is invisible before it is published."""
    known = pa.table([list(splits), list(splits.values())], schema=TABLES["splits"])
    return build_version(store, by or recipe(), LazyRows.of(examples(*rows)), refusals(*bad), known)


def version_of(
    store: Store,
    patients: int = 30,
    *,
    spec: PreprocessSpec = GREY,
    name: str = "d",
    key_fingerprint: str = "k",
) -> DatasetVersion:
    """Publish a dataset of two classes: "dark" images of level 60 and "bright" ones of level 190."""
    images = np.full((patients, spec.size_px, spec.size_px), 60, np.uint8)
    images[1::2] = 190
    shard = write_shard(store, images)
    rows = [
        example(
            n, patient_key=f"p{n:03d}", shard=shard, spec=spec.digest, source_label=("dark", "bright")[n % 2]
        )
        for n in range(patients)
    ]
    made = recipe(dataset=name, spec=spec, positive="bright", key_fingerprint=key_fingerprint)
    version = built(store, rows, by=made)
    publish(version, None)
    return version


def write_dicom(path: Path, pixels: np.ndarray | None = None, **attributes: Any) -> Path:
    """Write a valid CT slice; `attributes` are keywords with values, and None leaves one out."""
    stored = np.zeros((64, 64), np.int16) if pixels is None else pixels.astype(np.int16)
    defaults = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.2",
        "StudyInstanceUID": "1.2.1",
        "PatientID": "P",
        "Modality": "CT",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelData": stored.tobytes(),
    }
    dataset = Dataset()
    for keyword, value in (defaults | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or "1.2.3"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_archive(folder: Path, patients: int = 24) -> tuple[Path, Path]:
    """Write a slice of each patient, of two classes in turn; return the folder and the label table."""
    rows = []
    for number in range(patients):
        label = ("plain", "contrast")[number % 2]
        level = np.full((64, 64), 100 * (number % 2) + number)
        uid = f"1.2.{number + 10}"
        write_dicom(folder / f"IM{number}", level, PatientID=f"P{number}", SOPInstanceUID=uid)
        rows.append({"SOPInstanceUID": uid, "label": label, "ward": "one"})
    return folder, write_labels(folder.parent / "labels.csv", rows)


def write_labels(path: Path, rows: list[Mapping[str, str]]) -> Path:
    """Write a label table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def bright_model(*, gain: float = 1.0, offset: float = 0.0) -> onnx.ModelProto:
    """Return a model whose probability of the second class is gain * mean grey share + offset.

    It takes grey levels (batch, 1, height, width); a negative gain makes it always wrong.
    """
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        helper.make_node("Clip", ["moved", "zero", "one"], ["second"]),
        helper.make_node("Sub", ["one", "second"], ["first"]),
        helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
    ]
    numbers = {"gain": gain / 255, "offset": offset, "zero": 0.0, "one": 1.0}
    initial = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in numbers.items()]
    initial.append(helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, "height", "width"])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "bright", [image], [output], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    metadata = {
        "classes": '["dark", "bright"]',
        "spec": GREY.model_dump_json(),
        "threshold": "0.5",
    }
    helper.set_model_props(model, metadata)
    return model


def register_bright(settings: Settings, name: str, **gain: float) -> Registered:
    """Register a `bright_model` under a run of its own."""
    run_id = start_run(settings, name, "run", {}, {})
    objective = Classification(classes=("dark", "bright"), threshold=0.5)
    tags = model_tags(GREY, TrainConfig(network="small_cnn"), objective)
    tags |= {"training.key": run_id, "git.commit": "unknown"}
    return register(settings, name, run_id, bright_model(**gain), tags)


def measured(value: float, name: str = "auroc") -> Measure:
    """Return a measure with an interval of a tenth around it."""
    return Measure(
        name=name,
        title=MEASURES[name].title,
        value=value,
        lower=value - 0.05,
        upper=value + 0.05,
        patients=20,
        examples=40,
        undefined_draws=0,
    )


def verdict(*, promote: bool, champion: float | None = None) -> Verdict:
    """Return a verdict on a candidate of AUROC 0.9."""
    return Verdict(
        promote=promote,
        reason="it was told so.",
        measure="auroc",
        candidate=measured(0.9),
        champion=None if champion is None else measured(champion),
        difference=None if champion is None else 0.9 - champion,
        difference_lower=None if champion is None else 0.85 - champion,
        difference_upper=None if champion is None else 0.95 - champion,
        margin=0.02,
        floor=0.7,
        patients=20,
        examples=40,
    )


def closed_port() -> int:
    """Return a port of this machine at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
