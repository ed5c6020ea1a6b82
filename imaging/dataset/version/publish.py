"""Writing and publishing of a version: examples, labels and splits become one manifest, visible whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.annotations.class_order import order_classes
from imaging.annotations.finding_join import finding_columns, join_findings
from imaging.annotations.finding_table import FindingTables
from imaging.annotations.label_join import LabelReport, join_labels, joined_columns
from imaging.annotations.label_table import LabelTable
from imaging.dataset.split.assignment import draw_splits, rarest_findings
from imaging.dataset.tables.annotation_rows import annotation_groups
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.mask_rows import MaskAnnotations, class_presence, faults_of
from imaging.dataset.tables.schemas import ANNOTATIONS_SINCE, TABLES
from imaging.dataset.tables.spill import grouped_by_prefix
from imaging.dataset.tables.table_files import prefix_digits, write_parts
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.dataset.version.head import COUNTED, VersionHead, count_rows, head_name, pointer_name
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import VariantPolicy
from imaging.release_compatibility import needed_release, newest_release
from imaging.store.protocol import Store

KEYS = {
    "examples": "instance_key",
    "quarantine": "source_key",
    "splits": "patient_key",
    "tombstones": "instance_key",
    "annotations": "instance_key",
}
"""The column by which the rows of each table are ordered."""
SPLIT_COLUMNS = ("patient_key", "label", "site_key", "source_split", "fingerprint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a version is made by, beside its rows: specification, key, shares of the splits, and annotations."""

    dataset: str
    spec: PreprocessSpec
    key_fingerprint: str
    shares: Mapping[str, float]
    labels: LabelTable | None = None
    positive: str | None = None
    patient_variants: VariantPolicy = "report"
    findings: FindingTables | None = None
    masks: MaskAnnotations | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    """What tables say of the examples: a label, or what is known of each of `names`, and the lines without effect.

    `known` (n, names) are findings, or the classes of masks: 1 is present, 0 absent, -1 unknown.
    """

    labels: pa.ChunkedArray
    faults: pa.ChunkedArray
    known: NDArray[np.int8]
    report: LabelReport
    lines_of_others: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


def build_version(
    store: Store,
    recipe: Recipe,
    examples: LazyRows,
    refusals: pa.Table,
    previous_splits: pa.Table | None,
    tombstones: pa.Table | None = None,
    annotations: pa.Table | None = None,
) -> DatasetVersion:
    """Write the files of a version, which stays invisible until `publish` moves the pointer to it.

    `annotations` are rows of that table beside those of the recipe's findings, such as masks.
    """
    joined = _joined(recipe, examples)
    others = TABLES["annotations"].empty_table() if annotations is None else annotations
    if recipe.masks:
        others = pa.concat_tables([others, recipe.masks.rows])
    labelled = examples.with_columns(pa.table({"label": joined.labels, "label_fault": joined.faults}))
    known = TABLES["splits"].empty_table() if previous_splits is None else previous_splits
    splits = draw_splits(_split_rows(labelled, joined), known, recipe.shares)
    whole = labelled.with_columns(
        pa.table({"split": _split_column(labelled.select(["patient_key", "source_split"]), splits)})
    )
    head = VersionHead(
        dataset=recipe.dataset,
        digest="",
        spec=recipe.spec,
        classes=order_classes(pc.unique(joined.labels).drop_null().to_pylist(), recipe.positive),
        key_fingerprint=recipe.key_fingerprint,
        label_report=joined.report,
        label_level=_label_level(recipe),
        findings=recipe.findings.names if recipe.findings else (),
        mask_classes=recipe.masks.classes if recipe.masks else (),
        lines_of_others=joined.lines_of_others,
        patient_variants=recipe.patient_variants,
        needs=newest_release(
            needed_release(recipe.spec), ANNOTATIONS_SINCE if joined.names or others.num_rows else ""
        ),
    )
    tables = {
        "quarantine": refusals,
        "splits": splits,
        "tombstones": TABLES["tombstones"].empty_table() if tombstones is None else tombstones,
    }
    return _write(store, head, whole, tables, joined, others)


def publish(version: DatasetVersion, expected: str | None) -> bool:
    """Move the dataset's pointer from `expected` to this version; False where somebody else moved it first."""
    return expected == version.digest or version.store.swap(
        pointer_name(version.head.dataset), expected, version.digest
    )


def _joined(recipe: Recipe, examples: LazyRows) -> _Joined:
    count = examples.num_rows
    without_label = pa.chunked_array([pa.nulls(count, pa.string())])
    if recipe.masks:
        keys = examples.select(["instance_key"])["instance_key"]
        return _Joined(
            labels=without_label,
            faults=faults_of(keys, recipe.masks.rows),
            known=class_presence(keys, recipe.masks.rows, len(recipe.masks.classes)),
            report=LabelReport(
                lines_without_image=recipe.masks.lines_without_image,
                lines_in_conflict=recipe.masks.lines_in_conflict,
            ),
            names=recipe.masks.classes,
        )
    if recipe.findings is None:
        labels = join_labels(recipe.labels, examples.select(joined_columns(recipe.labels)))
        return _Joined(
            labels=labels.labels,
            faults=labels.faults,
            known=np.empty((count, 0), np.int8),
            report=labels.report,
            lines_of_others=labels.lines_of_others,
        )
    joined = join_findings(recipe.findings, examples.select(finding_columns(recipe.findings)))
    return _Joined(
        labels=without_label,
        faults=joined.faults,
        known=joined.findings,
        names=recipe.findings.names,
        report=joined.report,
        lines_of_others=joined.lines_of_others,
    )


def _label_level(recipe: Recipe) -> str:
    if recipe.masks:
        return recipe.masks.level
    table = recipe.findings.tables[0] if recipe.findings else recipe.labels
    return table.level if table else "instance"


def _split_rows(labelled: LazyRows, joined: _Joined) -> pa.Table:
    """Return what splits are drawn by; the rarest finding or class of a patient takes the place of a label."""
    rows = labelled.select(SPLIT_COLUMNS)
    if not joined.names:
        return rows
    strata = rarest_findings(rows["patient_key"], joined.known, joined.names)
    return rows.set_column(rows.column_names.index("label"), "label", strata)


def _split_column(examples: pa.Table, splits: pa.Table) -> pa.ChunkedArray:
    names, values = (splits[name].combine_chunks() for name in ("patient_key", "split"))
    drawn = values.take(pc.index_in(examples["patient_key"], value_set=names))
    return pc.coalesce(examples["source_split"], drawn)


def _write(
    store: Store,
    head: VersionHead,
    examples: LazyRows,
    tables: Mapping[str, pa.Table],
    joined: _Joined,
    others: pa.Table,
) -> DatasetVersion:
    """Write the tables and the head; `others` are annotations beside the findings."""
    newest = newest_version(store, head.dataset)
    # Parts that only older versions have are written again, since `gc` may be about to remove them as old.
    known = newest.head.by_content() if newest else {}
    digits = prefix_digits(examples.num_rows)
    with grouped_by_prefix(examples, KEYS["examples"], digits) as groups:
        parts = {"examples": write_parts(store, groups, TABLES["examples"], KEYS["examples"], digits, known)}
    for name, table in tables.items():
        parts[name] = write_parts(
            store, [table], TABLES[name], KEYS[name], prefix_digits(table.num_rows), known
        )
    if head.findings or others.num_rows:
        keys = examples.select([KEYS["annotations"]])[KEYS["annotations"]]
        # Cut as the examples are, so that a part is as large as one of theirs, times the findings.
        findings = joined.known if head.findings else np.empty((len(keys), 0), np.int8)
        groups_of = annotation_groups(keys, findings, head.findings, others, digits)
        parts["annotations"] = write_parts(
            store, groups_of, TABLES["annotations"], KEYS["annotations"], digits, known
        )
    head = replace(
        head,
        parts={name: tuple(part.name for part in some) for name, some in parts.items()},
        contents={name: tuple(part.content for part in some) for name, some in parts.items()},
        counts=count_rows(examples.select(COUNTED), tables["quarantine"], joined.known, joined.names),
    ).named()
    if newest and newest.digest == head.digest:
        return newest
    # The head is written last: a version without it does not exist.
    store.write(head_name(head.dataset, head.digest), head.to_json().encode())
    return DatasetVersion(store, head)
