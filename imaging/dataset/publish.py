"""Owns the making of a version: examples, labels and splits become one manifest, seen whole or not at all."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from imaging.dataset.chunk import Example, Refusal
from imaging.dataset.manifest import example_schema, parquet_bytes, refusal_schema, table_digest, to_table
from imaging.dataset.split import assign
from imaging.dataset.version import DatasetVersion, VersionHead, pointer_name, version_file
from imaging.deidentify.pseudonyms import Level, VariantPolicy
from imaging.errors import EnvironmentFault
from imaging.labels import LabelReport, LabelTable, join, order_classes
from imaging.preprocess import PreprocessSpec
from imaging.store.folder import FolderStore


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
    store: FolderStore,
    recipe: Recipe,
    examples: Sequence[Example],
    refusals: Sequence[Refusal],
    previous_splits: Mapping[str, str],
) -> DatasetVersion:
    """Write the files of a version, which stays invisible until `publish` moves the pointer to it."""
    ordered = sorted(examples, key=lambda example: example.instance_key)
    labels, report = _labels(ordered, recipe.labels)
    manifest = to_table(ordered, example_schema())
    manifest = manifest.append_column("label", pa.array(labels, pa.string()))
    sides = _sides(ordered, labels, previous_splits, recipe.shares)
    splits = [example.source_split or sides.get(example.patient_key) for example in ordered]
    manifest = manifest.append_column("split", pa.array(splits, pa.string()))
    quarantine = to_table(sorted(refusals, key=lambda refusal: refusal.source_key), refusal_schema())
    head = VersionHead(
        dataset=recipe.dataset,
        digest="",
        spec=recipe.spec,
        classes=order_classes((label for label in labels if label is not None), recipe.positive),
        key_fingerprint=recipe.key_fingerprint,
        label_report=report,
        label_level=recipe.labels.level if recipe.labels else "instance",
        patient_variants=recipe.patient_variants,
    )
    return _write(
        store, head, {"manifest": manifest, "quarantine": quarantine, "splits": _splits_table(sides)}
    )


def publish(version: DatasetVersion, expected: str | None) -> bool:
    """Move the dataset's pointer to this version; False where it stood there already.

    Raises EnvironmentFault if another run moved the pointer since `expected` was read.
    """
    if expected == version.digest:
        return False
    if not version.store.swap(pointer_name(version.head.dataset), expected, version.digest):
        raise EnvironmentFault(
            f"dataset {version.head.dataset!r} was changed by another run meanwhile (it was at {expected}): "
            "nothing was published; run again"
        )
    return True


def _labels(examples: Sequence[Example], table: LabelTable | None) -> tuple[list[str | None], LabelReport]:
    if table is None:
        labels = [example.source_label for example in examples]
        without = tuple(e.object_key for e in examples if e.source_label is None)
        return labels, LabelReport(images_without_label=without)
    keys: dict[Level, list[str]] = {
        "instance": [example.object_key for example in examples],
        "series": [example.series_key for example in examples],
        "study": [example.study_key for example in examples],
        "patient": [example.patient_key for example in examples],
        "file": [example.source_key for example in examples],
    }
    return join(table, keys)


def _sides(
    examples: Sequence[Example],
    labels: Sequence[str | None],
    previous: Mapping[str, str],
    shares: Mapping[str, float],
) -> dict[str, str]:
    """Return the split of every patient who ever had one: whose images or labels went may come back."""
    strata: dict[str, set[str]] = defaultdict(set)
    for example, label in zip(examples, labels, strict=True):
        if label is not None and example.source_split is None:
            strata[example.patient_key].add(label)
    drawn = assign({patient: "|".join(sorted(names)) for patient, names in strata.items()}, previous, shares)
    return {**previous, **drawn}


def _splits_table(sides: Mapping[str, str]) -> pa.Table:
    patients = sorted(sides)
    columns = {"patient_key": patients, "split": [sides[patient] for patient in patients]}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _write(store: FolderStore, head: VersionHead, tables: Mapping[str, pa.Table]) -> DatasetVersion:
    digest = table_digest(tables.values(), head.to_json())
    named = replace(head, digest=digest)
    dataset = head.dataset
    if not store.exists(version_file(dataset, digest, "version.json")):
        for name, table in tables.items():
            store.write(version_file(dataset, digest, f"{name}.parquet"), parquet_bytes(table))
        # The head is written last: a version without it does not exist.
        store.write(version_file(dataset, digest, "version.json"), named.to_json().encode())
    return DatasetVersion(store, named)
