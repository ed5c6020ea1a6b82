"""Owns dataset versions: what a version holds, how it is opened, and how its rows are read by split."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imaging.dataset.chunk import Example, Refusal
from imaging.dataset.shard import map_shard
from imaging.deidentify.pseudonyms import VariantPolicy
from imaging.errors import UserFault
from imaging.labels import LabelReport
from imaging.preprocess import PreprocessSpec
from imaging.store.folder import FolderStore


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionHead:
    """What is written beside the manifest of a version."""

    dataset: str
    digest: str
    spec: PreprocessSpec
    classes: tuple[str, ...]
    key_fingerprint: str
    label_report: LabelReport
    label_level: str
    patient_variants: VariantPolicy = "report"

    def to_json(self) -> str:
        """Return the head as JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain |= {"spec": self.spec.model_dump(mode="json"), "label_report": asdict(self.label_report)}
        return json.dumps(plain, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "VersionHead":
        """Read a head back."""
        plain: dict[str, Any] = json.loads(text)
        report = LabelReport(**{name: tuple(values) for name, values in plain.pop("label_report").items()})
        spec = PreprocessSpec.model_validate(plain.pop("spec"))
        return cls(**plain | {"spec": spec, "label_report": report, "classes": tuple(plain["classes"])})


@dataclass(frozen=True)
class Rows:
    """The labelled examples of one split, their images mapped into memory."""

    labels: NDArray[np.int64]
    instance_keys: NDArray[np.str_]
    patient_keys: NDArray[np.str_]
    shards: tuple[NDArray[np.uint8], ...]
    shard_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    version_digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the (len(index), size, size) images at these positions."""
        shard, row = self.shard_of[index], self.row_of[index]
        out = np.empty((len(index), *self.shards[0].shape[1:]), np.uint8)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            out[here] = self.shards[number][row[here]]
        return out


@dataclass(frozen=True)
class DatasetVersion:
    """One immutable version of a dataset in a store."""

    store: FolderStore
    head: VersionHead

    @property
    def digest(self) -> str:
        """The name of this version: the digest of its content."""
        return self.head.digest

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in their order; of two, the second is the one that is looked for."""
        return self.head.classes

    @property
    def spec(self) -> PreprocessSpec:
        """How the images were prepared."""
        return self.head.spec

    @cached_property
    def manifest(self) -> pa.Table:
        """One row per example."""
        return pq.read_table(
            self.store.path(version_file(self.head.dataset, self.digest, "manifest.parquet"))
        )

    @cached_property
    def quarantine(self) -> pa.Table:
        """One row per file that gave no example."""
        return pq.read_table(
            self.store.path(version_file(self.head.dataset, self.digest, "quarantine.parquet"))
        )

    def examples(self) -> list[Example]:
        """Return the rows as they came out of their chunks, without label and split."""
        # Older versions lack columns that came later and have defaults.
        names = [name for name in Example.__slots__ if name in self.manifest.column_names]
        return [Example(**row) for row in self.manifest.select(names).to_pylist()]

    def refusals(self) -> list[Refusal]:
        """Return the rows of the quarantine."""
        return [Refusal(**row) for row in self.quarantine.to_pylist()]

    def splits(self) -> dict[str, str]:
        """Return the split of each patient who was ever given one; where the source fixes them, of none."""
        table = pq.read_table(self.store.path(version_file(self.head.dataset, self.digest, "splits.parquet")))
        return dict(zip(table["patient_key"].to_pylist(), table["split"].to_pylist(), strict=True))

    def rows(self, split: str) -> Rows:
        """Return the labelled examples of a split; the test split is for verdicts only."""
        chosen = (pa.compute.field("split") == split) & pa.compute.field("label").is_valid()
        return self._rows(self.manifest.filter(chosen))

    def rows_of(self, instance_keys: NDArray[np.str_]) -> Rows:
        """Return the examples of these instances, in their order, whatever their split.

        Raises UserFault if this version does not hold them all.
        """
        at = {key: number for number, key in enumerate(self.manifest["instance_key"].to_pylist())}
        missing = [key for key in instance_keys.tolist() if key not in at]
        if missing:
            raise UserFault(
                f"{len(missing)} of {len(instance_keys)} test images cannot be prepared with specification "
                f"{self.spec.digest}: compare models of one preprocessing, or start another with --name"
            )
        return self._rows(self.manifest.take([at[key] for key in instance_keys.tolist()]))

    def _rows(self, table: pa.Table) -> Rows:
        digests = sorted(set(table["shard"].to_pylist()))
        shard_number = {digest: number for number, digest in enumerate(digests)}
        class_number = {name: number for number, name in enumerate(self.classes)}
        return Rows(
            labels=np.array([class_number[name] for name in table["label"].to_pylist()], np.int64),
            instance_keys=np.array(table["instance_key"].to_pylist(), np.str_),
            patient_keys=np.array(table["patient_key"].to_pylist(), np.str_),
            shards=tuple(map_shard(self.store, digest) for digest in digests),
            shard_of=np.array([shard_number[digest] for digest in table["shard"].to_pylist()], np.int64),
            row_of=table["row"].to_numpy().astype(np.int64),
            version_digest=self.digest,
        )

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return examples and patients per split and class."""
        frame = self.manifest.select(["split", "label", "patient_key"]).to_pandas().dropna()
        out: dict[str, dict[str, dict[str, int]]] = {}
        for (split, label), group in frame.groupby(["split", "label"]):
            numbers = {"examples": len(group), "patients": int(group["patient_key"].nunique())}
            out.setdefault(str(split), {})[str(label)] = numbers
        return out


def pointer_name(dataset: str) -> str:
    """Return the name of the pointer to a dataset's newest version."""
    return f"datasets/{dataset}/current"


def version_file(dataset: str, digest: str, name: str) -> str:
    """Return where a file of a version lives in the store."""
    return f"datasets/{dataset}/versions/{digest}/{name}"


def open_version(root: str | Path, dataset: str, digest: str) -> DatasetVersion:
    """Open a version by its digest."""
    store = FolderStore(Path(root))
    name = version_file(dataset, digest, "version.json")
    if not store.exists(name):
        raise UserFault(f"dataset {dataset!r} has no version {digest} in {root}: run `radloop ingest` first")
    return DatasetVersion(store, VersionHead.from_json(store.read(name).decode()))


def newest_version(root: str | Path, dataset: str) -> DatasetVersion | None:
    """Open the newest version of a dataset, or return None where there is none yet."""
    digest = FolderStore(Path(root)).pointer(pointer_name(dataset))
    return open_version(root, dataset, digest) if digest else None


def reasons(version: DatasetVersion) -> Mapping[str, int]:
    """Return how many files each reason refused."""
    counted = version.quarantine["reason"].value_counts().to_pylist()
    return {item["values"]: item["counts"] for item in sorted(counted, key=lambda item: -item["counts"])}
