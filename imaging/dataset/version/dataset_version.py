"""Owns dataset versions: what a version holds, how it is opened, and which of its rows may be read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3
from numpy.typing import NDArray

from imaging.annotations.label_table import LabelReport
from imaging.dataset.split.test_lock import LOCKED, note_read
from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.tables.table_files import read_parts
from imaging.dataset.version.counts import COUNTED, Counts, Labelled, count_rows
from imaging.dataset.version.example_set import COLUMNS, Rows, rows_of
from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import VariantPolicy
from imaging.store.protocol import Damaged, Store

FORMAT = 2
"""Of the layout that docs/datasets.md describes; another one is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionHead:
    """What names the parts of a version, and what is true of all its rows; `parts` are names of the store by table.

    `contents` are the digests of their rows. `counts` repeat what the tables say, for who only lists; None of a
    version that was made before they were kept.
    """

    dataset: str
    digest: str
    spec: PreprocessSpec
    classes: tuple[str, ...]
    key_fingerprint: str
    label_report: LabelReport
    label_level: str
    patient_variants: VariantPolicy = "report"
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    contents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: Counts | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the head as JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain |= {"spec": self.spec.model_dump(mode="json"), "label_report": asdict(self.label_report)}
        # Left out where there are none: a digest is of a head without them, as it was before they were kept.
        del plain["counts"]
        plain |= {"counts": asdict(self.counts)} if self.counts else {}
        plain |= {"parts": dict(self.parts), "contents": dict(self.contents)}
        return json.dumps(plain, indent=1, sort_keys=True)

    def named(self) -> "VersionHead":
        """Return the head with the name of its version: the digest of all that it says of their content."""
        unnamed = replace(self, digest="", parts={}, counts=None)
        return replace(self, digest=blake3(unnamed.to_json().encode()).hexdigest(length=16))

    def by_content(self) -> dict[str, str]:
        """Return the names of parts by the digests of their rows."""
        return {
            content: name
            for table, names in self.parts.items()
            for content, name in zip(self.contents.get(table, ()), names, strict=False)
        }

    @classmethod
    def from_json(cls, text: str) -> "VersionHead":
        """Read a head back."""
        plain: dict[str, Any] = json.loads(text)
        if plain.get("format") != FORMAT:
            raise UserFault(
                f"the dataset is of format {plain.get('format', 1)} and this program reads format {FORMAT}: "
                "ingest into a new dataset with another --name"
            )
        report = LabelReport(**{name: tuple(values) for name, values in plain.pop("label_report").items()})
        parts, contents = (
            {name: tuple(names) for name, names in plain.pop(told, {}).items()}
            for told in ("parts", "contents")
        )
        counts = Counts(**plain.pop("counts")) if "counts" in plain else None
        plain |= {
            "label_report": report,
            "parts": parts,
            "contents": contents,
            "classes": tuple(plain["classes"]),
            "counts": counts,
        }
        return cls(**plain | {"spec": PreprocessSpec.model_validate(plain["spec"])})


@dataclass(frozen=True)
class DatasetVersion:
    """One immutable version of a dataset in a store."""

    store: Store
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

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return one of `imaging.dataset.tables.schemas.TABLES`, or some columns of it."""
        return read_parts(self.store, self.head.parts[name], TABLES[name], columns)

    @cached_property
    def manifest(self) -> pa.Table:
        """One row per example, all columns: for small datasets; `table` reads what is needed."""
        return self.table("examples")

    @cached_property
    def quarantine(self) -> pa.Table:
        """One row per file that gave no example."""
        return self.table("quarantine")

    def splits(self) -> dict[str, str]:
        """Return the split of each patient who was ever given one; where the source fixes them, of none."""
        table = self.table("splits")
        return dict(zip(table["patient_key"].to_pylist(), table["split"].to_pylist(), strict=True))

    def rows(self, split: str) -> Rows:
        """Return the labelled examples of a split; raise UserFault for the locked one."""
        if split == LOCKED:
            raise UserFault(
                f"the patients of split {LOCKED!r} are locked away for the verdict, and nothing is trained on them: "
                "take 'train' or 'val'"
            )
        return self._split(split)

    def locked_rows(self, reader: str) -> Rows:
        """Return the labelled examples of the test patients; that `reader` saw them is written down and counted."""
        rows = self._split(LOCKED)
        note_read(self.store, self.head.dataset, self.digest, reader, len(rows))
        return rows

    def rows_of(self, instance_keys: Sequence[str] | NDArray[np.str_]) -> Rows:
        """Return the examples of these instances, in their order, whatever their split.

        Raises UserFault if this version does not hold them all.
        """
        wanted = pa.array(instance_keys, pa.string())
        table = self.table("examples", COLUMNS)
        at = pc.index_in(wanted, value_set=table["instance_key"])
        if at.null_count:
            raise UserFault(
                f"{at.null_count} of {len(wanted)} test images cannot be prepared with specification "
                f"{self.spec.digest}: compare models of one preprocessing, or start another with --name"
            )
        return rows_of(self.store, table.take(at), self.classes, self.digest)

    def _split(self, split: str) -> Rows:
        table = self.table("examples", [*COLUMNS, "split"])
        chosen = pc.and_(pc.equal(table["split"], split), pc.is_valid(table["label"]))
        return rows_of(self.store, table.filter(chosen), self.classes, self.digest)

    @cached_property
    def counted(self) -> Counts:
        """How much it holds, as the head says; its tables are read where that does not."""
        return self.head.counts or self.count()

    def count(self) -> Counts:
        """Count what the tables hold."""
        return count_rows(self.table("examples", COUNTED), self.table("quarantine", ["reason"]))

    def counts(self) -> Labelled:
        """Return examples and patients per split and class."""
        return self.counted.labelled


def pointer_name(dataset: str) -> str:
    """Return the name of the pointer to a dataset's newest version."""
    return f"datasets/{dataset}/current"


def head_name(dataset: str, digest: str) -> str:
    """Return where the head of a version lives in the store."""
    return f"datasets/{dataset}/versions/{digest}.json"


def open_version(store: Store, dataset: str, digest: str) -> DatasetVersion:
    """Open a version by its digest."""
    name = head_name(dataset, digest)
    if not store.exists(name):
        raise UserFault(
            f"dataset {dataset!r} has no version {digest}: `radloop dataset list` shows which it has"
        )
    try:
        return DatasetVersion(store, VersionHead.from_json(store.read(name).decode()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"{name} of the store is damaged ({type(error).__name__}): restore it from a copy, or ingest into a new "
            "dataset with another --name"
        ) from None


def newest_version(store: Store, dataset: str) -> DatasetVersion | None:
    """Open the newest version of a dataset, or return None where there is none yet."""
    digest = store.pointer(pointer_name(dataset))
    return open_version(store, dataset, digest) if digest else None


def reasons(version: DatasetVersion) -> Mapping[str, int]:
    """Return how many files each reason refused, the most first."""
    return dict(sorted(version.counted.refusals.items(), key=lambda item: -item[1]))
