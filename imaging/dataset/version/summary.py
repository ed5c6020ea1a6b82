"""Summary of a version: counts, refusals, histograms of how its images were made, and variants of patients."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.split.test_lock import count_reads
from imaging.dataset.tables.shard import shard_name
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.refusal_reasons import CONFLICTING_INSTANCE

COUNTED_BY = ("label", "split", "modality", "site_key")
VALUES = ("manufacturer", "model", "body_part")
NUMBERS = ("spacing_mm", "rows", "columns", "kvp")
BINS = 12
"""Bins of a histogram of numbers; up to so many different numbers are counted as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many examples, and of how many patients."""

    examples: int
    patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Numbers by size: (lowest, highest, examples) of each bin, and how many examples have no number."""

    bins: tuple[tuple[float, float, int], ...]
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `radloop dataset show` shows of a version; counts are by values, "" where there is none.

    `findings` are counts by split and finding, see `imaging.dataset.version.head.Counts`; a version that has them has
    no counts of labels.
    """

    dataset: str
    digest: str
    classes: tuple[str, ...]
    label_level: str
    spec: Mapping[str, Any]
    spec_digest: str
    examples: int
    patients: int
    counts: Mapping[str, Mapping[str, Count]]
    label_by_split: Mapping[str, Mapping[str, Count]]
    findings: Mapping[str, Mapping[str, Mapping[str, int]]]
    unlabelled: Mapping[str, int]
    refusals: Mapping[str, int]
    conflicts: int
    tombstones: int
    test_reads: int
    shards: int
    shard_bytes: int
    part_bytes: int
    values: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, Histogram]


def summarize(version: DatasetVersion) -> Summary:
    """Return the summary of a version; only the columns that are counted are read, one after the other."""
    head, patients = version.head, _coded(version, "patient_key")[1]
    splits, split = _coded(version, "split")
    labels, label = _coded(version, "label")
    faults = _values(version, "label_fault")
    shards = pc.unique(version.table("examples", ["shard"])["shard"]).to_pylist()
    refused = version.refusals_by_reason()
    return Summary(
        dataset=head.dataset,
        digest=version.digest,
        classes=version.classes,
        label_level=head.label_level,
        spec=version.spec.model_dump(mode="json"),
        spec_digest=version.spec.digest,
        examples=len(patients),
        patients=int(patients.max(initial=-1)) + 1,
        counts=count_by(version, COUNTED_BY[1:] if version.findings else COUNTED_BY),
        label_by_split={
            name: _counts(splits, split[label == number], patients[label == number])
            for number, name in enumerate(labels)
            if not version.findings
        },
        findings=version.counts.findings,
        unlabelled={name: number for name, number in faults.items() if name},
        refusals=refused,
        conflicts=refused.get(CONFLICTING_INSTANCE, 0),
        tombstones=version.table("tombstones", ["instance_key"]).num_rows,
        test_reads=count_reads(version.store, head.dataset),
        shards=len(shards),
        shard_bytes=_bytes(version, "shards/", {shard_name(digest) for digest in shards}),
        part_bytes=_bytes(version, "manifests/", {name for names in head.parts.values() for name in names}),
        values={name: _values(version, name) for name in VALUES},
        numbers={name: _histogram(version.table("examples", [name])[name]) for name in NUMBERS},
    )


def count_by(version: DatasetVersion, columns: Sequence[str]) -> dict[str, dict[str, Count]]:
    """Return the counts of examples and patients by the values of columns; `site_key` is called site here."""
    patients = _coded(version, "patient_key")[1]
    return {name.removesuffix("_key"): _counts(*_coded(version, name), patients) for name in columns}


def _coded(version: DatasetVersion, name: str) -> tuple[list[str], NDArray[np.int32]]:
    """Return the different values of a column, and of each row which it is."""
    column = version.table("examples", [name])[name]
    coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()


def _counts(names: Sequence[str], values: NDArray[np.int32], patients: NDArray[np.int32]) -> dict[str, Count]:
    """Count rows and different patients of each value, the most frequent first."""
    examples = np.bincount(values, minlength=len(names))
    # Each pair of value and patient once: as one number, which sorts faster than rows do.
    pairs = np.unique(values.astype(np.int64) * (int(patients.max(initial=0)) + 1) + patients)
    of_patients = np.bincount(pairs // (int(patients.max(initial=0)) + 1), minlength=len(names))
    return {
        names[at]: Count(examples=int(examples[at]), patients=int(of_patients[at]))
        for at in np.argsort(-examples, kind="stable")
        if examples[at]
    }


def _values(version: DatasetVersion, name: str) -> dict[str, int]:
    names, values = _coded(version, name)
    counted = np.bincount(values, minlength=len(names))
    return {names[at]: int(counted[at]) for at in np.argsort(-counted, kind="stable")}


def _histogram(column: pa.ChunkedArray) -> Histogram:
    """Return few different numbers as they are, and many in bins; the outer hundredths do not make them wide.

    >>> _histogram(pa.chunked_array([[0.5, 0.5, None]]))
    Histogram(bins=((0.5, 0.5, 2),), missing=1)
    """
    numbers = column.drop_null().to_numpy().astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    different, examples = np.unique(numbers, return_counts=True)
    if len(different) > BINS:
        inner = np.linspace(np.percentile(numbers, 1), np.percentile(numbers, 99), BINS + 1)[1:-1]
        edges = np.unique([different[0], *inner, different[-1]])
        examples = np.histogram(numbers, edges)[0]
        pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    else:
        pairs = zip(different.tolist(), different.tolist(), strict=True)
    bins = tuple((low, high, int(many)) for (low, high), many in zip(pairs, examples, strict=True))
    return Histogram(bins=bins, missing=len(column) - len(numbers))


def _bytes(version: DatasetVersion, folder: str, names: set[str]) -> int:
    """Return the total size of objects; missing ones count nothing here (`radloop dataset verify` finds them)."""
    return sum(one.size_bytes for one in version.store.names(folder) if one.name in names)


def patient_variants(version: DatasetVersion) -> Mapping[str, str]:
    """Return the shared pseudonym of patients who may be one, by the pseudonym of each; other patients are left out.

    Their PatientIDs differ in zeros, case or blanks alone. Under the policy "report" each variant is a patient of the
    version; under "join" the shared pseudonym is.
    """
    shared: dict[str, set[str]] = defaultdict(set)
    columns = ["patient_key", "patient_variant"]
    for pair in version.table("examples", columns).group_by(columns).aggregate([]).to_pylist():
        one, other = own_and_shared(version, pair["patient_key"], pair["patient_variant"])
        shared[other].add(one)
    return {own: one for one, variants in shared.items() if len(variants) > 1 for own in variants}


def own_and_shared(version: DatasetVersion, patient_key: str, patient_variant: str) -> tuple[str, str]:
    """Return a row's pseudonym by its PatientID as it was written, and the one that its variants share."""
    # A row older than the policy has only one: the right one of both where its PatientID was plain.
    variant = patient_variant or patient_key
    return (variant, patient_key) if version.head.patient_variants == "join" else (patient_key, variant)
