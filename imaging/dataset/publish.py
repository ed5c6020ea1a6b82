"""Owns the making of a version: examples, labels and splits become one manifest, seen whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.counts import count_rows
from imaging.dataset.parts import Ordered, table_digest, write_parts
from imaging.dataset.rows import TABLES
from imaging.dataset.sides import draw_sides
from imaging.dataset.version import DatasetVersion, VersionHead, head_name, pointer_name
from imaging.deidentify.pseudonyms import VariantPolicy
from imaging.labels import LabelTable, join, order_classes
from imaging.preprocess import PreprocessSpec
from imaging.store.protocol import Store

KEYS = {
    "examples": "instance_key",
    "quarantine": "source_key",
    "splits": "patient_key",
    "tombstones": "instance_key",
}
"""By what the rows of each table are ordered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a version is made by, beside its rows."""

    dataset: str
    spec: PreprocessSpec
    key_fingerprint: str
    shares: Mapping[str, float]
    labels: LabelTable | None = None
    positive: str | None = None
    patient_variants: VariantPolicy = "report"


def build_version(
    store: Store,
    recipe: Recipe,
    examples: pa.Table,
    refusals: pa.Table,
    previous_splits: pa.Table | None,
    tombstones: pa.Table | None = None,
) -> DatasetVersion:
    """Write the files of a version, which stays invisible until `publish` moves the pointer to it."""
    joined = join(recipe.labels, examples)
    labelled = examples.append_column("label", joined.labels).append_column("label_fault", joined.faults)
    known = TABLES["splits"].empty_table() if previous_splits is None else previous_splits
    sides = draw_sides(labelled, known, recipe.shares)
    tables = {
        "examples": labelled.append_column("split", _splits(labelled, sides)),
        "quarantine": refusals,
        "splits": sides,
        "tombstones": TABLES["tombstones"].empty_table() if tombstones is None else tombstones,
    }
    head = VersionHead(
        dataset=recipe.dataset,
        digest="",
        spec=recipe.spec,
        classes=order_classes(pc.unique(joined.labels).drop_null().to_pylist(), recipe.positive),
        key_fingerprint=recipe.key_fingerprint,
        label_report=joined.report,
        label_level=recipe.labels.level if recipe.labels else "instance",
        patient_variants=recipe.patient_variants,
    )
    return _write(store, head, tables)


def publish(version: DatasetVersion, expected: str | None) -> bool:
    """Move the dataset's pointer from `expected` to this version; False where somebody else moved it first."""
    return expected == version.digest or version.store.swap(
        pointer_name(version.head.dataset), expected, version.digest
    )


def _splits(examples: pa.Table, sides: pa.Table) -> pa.ChunkedArray:
    names, splits = (sides[name].combine_chunks() for name in ("patient_key", "split"))
    drawn = splits.take(pc.index_in(examples["patient_key"], value_set=names))
    return pc.coalesce(examples["source_split"], drawn)


def _write(store: Store, head: VersionHead, tables: Mapping[str, pa.Table]) -> DatasetVersion:
    ordered = {name: Ordered.by(table.cast(TABLES[name]), KEYS[name]) for name, table in tables.items()}
    digest = table_digest(list(ordered.values()), head.to_json())
    named = replace(head, digest=digest)
    name = head_name(head.dataset, digest)
    if store.pointer(pointer_name(head.dataset)) == digest:
        return DatasetVersion(store, VersionHead.from_json(store.read(name).decode()))
    # What is there already is written again, so that it is as young as this version: `gc` takes what is old.
    parts = {name: write_parts(store, rows) for name, rows in ordered.items()}
    # The head is written last: a version without it does not exist.
    named = replace(named, parts=parts, counts=count_rows(tables["examples"], tables["quarantine"]))
    store.write(name, named.to_json().encode())
    return DatasetVersion(store, named)
