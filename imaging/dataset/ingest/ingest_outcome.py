"""Outcome of an ingest: numbers without identifiers, and a private list of the files and labels that did not fit."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from imaging.annotations.class_order import DecidedBy, decided_by
from imaging.annotations.finding_table import FindingTables
from imaging.annotations.label_table import LabelTable
from imaging.dataset.ingest.diff import IngestPlan
from imaging.dataset.ingest.listing import Listing
from imaging.dataset.tables.mask_rows import refusals_of
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.summary import own_and_shared, patient_variants
from imaging.dicom.header import stated_modality
from imaging.image.window import Window
from imaging.preprocess.spec import MODALITIES
from imaging.private_list import PROBLEMS, write_private_list
from imaging.pseudonyms import VariantPolicy
from imaging.refusal_reasons import IGNORED, WRONG_MODALITY

Row = tuple[str, str, str, str]
OF_FILE_WINDOWS = ("dark-picture", "unusable-window")
LABEL_FAULTS = {"no-label": "images_without_label", "two-labels": "images_in_conflict"}


@dataclass(frozen=True, kw_only=True)
class IngestOutcome:
    """What an ingest did, in numbers; it holds no identifier.

    `labels_of_others` are lines of the label table that contradict the image which they name, and `labels_missing`
    counts the lines by the words that stand for no label. Of two classes the second is looked for, see
    `decided_by`.
    """

    dataset: str
    digest: str
    changed: bool
    files_listed: int
    files_read: int
    files_removed: int
    examples: int
    patients: int
    counts: dict[str, dict[str, dict[str, int]]]
    quarantined: dict[str, int]
    ignored: dict[str, int]
    labels_without_image: int
    images_without_label: int
    images_in_conflict: int
    problems_file: str | None
    patient_variants: int = 0
    variant_policy: VariantPolicy = "report"
    findings: dict[str, int] = field(default_factory=dict)
    """Images by what is to be known of them, keys of FINDINGS."""
    kind: Literal["slice", "volume"] = "slice"
    """What one example is: an image or frame, or a stack of slices."""
    modality: str = "CT"
    other_modalities: dict[str, int] = field(default_factory=dict)
    """Files that were not taken in for their modality, by what it is; "" where it is no code."""
    labels_of_others: int = 0
    labels_missing: Mapping[str, int] = field(default_factory=dict)
    labels_uneven: tuple[int, int] = (0, 0)
    """Lines of the label table with more or fewer fields than its header, and the first of them."""
    classes: tuple[str, ...] = ()
    finding_counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """By split and finding, see `imaging.dataset.version.head.Counts`; where there are findings instead of classes."""
    mask_classes: tuple[str, ...] = ()
    mask_faults: dict[str, int] = field(default_factory=dict)
    """Images without a usable mask, by the reason, the most first; where there are masks."""
    decided_by: DecidedBy = "names"
    untrainable: str = ""
    """Why nothing can be trained on the version, as a sentence."""


def ingest_outcome(
    version: DatasetVersion,
    scan: IngestPlan,
    files_read: int,
    problems: Path | None,
    *,
    changed: bool,
    labels: LabelTable | FindingTables | None = None,
    positive: str | None = None,
    untrainable: str = "",
) -> IngestOutcome:
    """Return what an ingest did."""
    counted = version.refusals_by_reason()
    labelled = version.table("examples", ["patient_key", "label_fault", "findings"])
    counts = labelled["label_fault"].drop_null().value_counts().to_pylist()
    faults = {item["values"]: item["counts"] for item in counts}
    return IngestOutcome(
        dataset=version.head.dataset,
        digest=version.digest,
        changed=changed,
        files_listed=scan.listed_files,
        files_read=files_read,
        files_removed=scan.removed_files,
        examples=labelled.num_rows,
        patients=len(pc.unique(labelled["patient_key"])),
        counts=version.counts.labelled,
        quarantined={reason: count for reason, count in counted.items() if reason not in IGNORED},
        ignored={reason: count for reason, count in counted.items() if reason in IGNORED},
        labels_without_image=len(version.head.label_report.lines_without_image),
        **{name: faults.get(fault, 0) for fault, name in LABEL_FAULTS.items()},
        problems_file=str(problems) if problems else None,
        patient_variants=len(patient_variants(version)),
        variant_policy=version.head.patient_variants,
        findings=_count_findings(
            labelled["findings"], is_window_fixed=isinstance(version.spec.window, Window)
        ),
        kind=version.spec.kind,
        modality=version.spec.modality,
        other_modalities=other_modalities(version.table("quarantine", ["reason", "detail"])),
        labels_of_others=len(version.head.lines_of_others),
        labels_missing=dict(labels.missing) if labels else {},
        labels_uneven=labels.uneven if labels else (0, 0),
        classes=version.classes,
        finding_counts=version.counts.findings,
        mask_classes=version.mask_classes,
        mask_faults=dict(sorted(faults.items(), key=lambda one: -one[1])) if version.mask_classes else {},
        decided_by=decided_by(version.classes, positive),
        untrainable=untrainable,
    )


def other_modalities(refusals: pa.Table) -> dict[str, int]:
    """Return how many refused files are of which other modality, the most frequent first."""
    details = (
        refusals.filter(pc.equal(refusals["reason"], WRONG_MODALITY))["detail"].value_counts().to_pylist()
    )
    counts = sorted(((item["counts"], stated_modality(item["values"])) for item in details), reverse=True)
    return {modality: count for count, modality in counts}


def modality_remedy(others: Mapping[str, int], expected: str) -> str:
    """Return which modalities a source holds instead of the expected one, and what to type.

    >>> modality_remedy({"MR": 1140, "SR": 2}, "CT")
    'found 1,140 MR and 2 SR, expected CT: add --modality MR to take these in'
    """
    most = next((modality for modality in others if modality in MODALITIES), None)
    remedy = f": add --modality {most} to take these in" if most else ""
    return f"found {listed_modalities(others)}, expected {expected}{remedy}"


def listed_modalities(others: Mapping[str, int]) -> str:
    """Return counts of files by modality for a sentence.

    >>> listed_modalities({"SR": 1140, "": 2})
    '1,140 SR and 2 without a modality'
    """
    return " and ".join(f"{count:,} {name or 'without a modality'}" for name, count in others.items())


def _count_findings(column: pa.ChunkedArray, *, is_window_fixed: bool) -> dict[str, int]:
    """Return how many images have each finding, the most first; a value has several, with spaces between them.

    >>> _count_findings(pa.chunked_array([["gap tilted", "gap dark-picture", ""]]), is_window_fixed=True)
    {'gap': 2, 'tilted': 1}
    """
    counted = Counter[str]()
    for item in column.value_counts().to_pylist():
        counted.update(dict.fromkeys((item["values"] or "").split(), item["counts"]))
    # What is said of the windows of files does not matter beside a fixed one.
    left_out = OF_FILE_WINDOWS if is_window_fixed else ()
    return {code: count for code, count in counted.most_common() if code not in left_out}


def write_problems(
    listing: Listing,
    version: DatasetVersion,
    folder: Path,
    labels: LabelTable | FindingTables | None = None,
) -> Path | None:
    """Write the list with original file names and label lines, for the eyes of those who may see them."""
    opposed = labels.opposed if labels else {}
    place = labels.place if isinstance(labels, FindingTables) else str
    rows = list(_rows(version))
    names = listing.named(pa.array({key for _, key, _, _ in rows}, pa.string()))
    named = [(what, names.get(key, "?"), reason, detail) for what, key, reason, detail in rows]
    report = version.head.label_report
    line_name = "mask line" if version.mask_classes else "label line"
    named += [(line_name, place(line), "names-no-image", "") for line in report.lines_without_image]
    named += [
        (
            line_name,
            place(line),
            "two-masks" if version.mask_classes else "two-labels",
            f"line {place(opposed[line])} has another" if line in opposed else "",
        )
        for line in report.lines_in_conflict
    ]
    named += [("label line", place(line), "of-another", "") for line in version.head.lines_of_others]
    if not named:
        return None
    path = folder / f"problems-{version.head.dataset}.csv"
    write_private_list(path, PROBLEMS, named)
    return path


def _rows(version: DatasetVersion) -> Iterator[Row]:
    """Yield what did not fit, each with the keyed name of its file."""
    refused = version.table("quarantine", ["source_key", "reason", "detail"])
    yield from (("file", *row) for row in zip(*_lists(refused), strict=True))
    labelled = version.table("examples", ["instance_key", "source_key", "label_fault"])
    details = {key: detail for key, _, detail in refusals_of(version.mask_rows())}
    yield from (
        ("image", *row, details.get(key, ""))
        for key, *row in zip(*_lists(labelled.filter(pc.is_valid(labelled["label_fault"]))), strict=True)
    )
    yield from _variant_rows(version, patient_variants(version))


def _variant_rows(version: DatasetVersion, variants: Mapping[str, str]) -> Iterator[Row]:
    """Yield a file of each PatientID that has variants; the detail says which belong together."""
    unseen = dict(variants)
    if not unseen:
        return
    columns = version.table("examples", ["source_key", "patient_key", "patient_variant"])
    for key, patient, variant in zip(*_lists(columns), strict=True):
        own, shared = own_and_shared(version, patient, variant)
        if unseen.pop(own, None):
            yield "patient", key, "patient-variant", f"patient {shared[:12]}"


def _lists(table: pa.Table) -> list[list[str]]:
    return [column.to_pylist() for column in table.columns]
