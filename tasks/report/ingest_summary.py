"""Outcome of an ingest as Markdown: what was taken in, what was not, and why."""

from typing import TYPE_CHECKING

from imaging.dicom.findings import FINDINGS
from imaging.preprocess.spec import UNITS
from imaging.quantities import quantity
from imaging.refusal_reasons import IGNORED, REASONS
from tasks.report.markdown_table import table

if TYPE_CHECKING:
    # A flow loads its own outcome's module alone, and not those of all others.
    from imaging.dataset.ingest.ingest_outcome import IngestOutcome


def ingest_markdown(outcome: "IngestOutcome") -> str:
    """Return what was taken in, what was not, and why."""
    counts = [
        (split, label, numbers["examples"], numbers["patients"])
        for split, labels in sorted(outcome.counts.items())
        for label, numbers in sorted(labels.items())
        if label
    ]
    refused = [(reason, count, REASONS[reason]) for reason, count in outcome.quarantined.items()]
    refused += [(reason, count, f"ignored: {IGNORED[reason]}") for reason, count in outcome.ignored.items()]
    findings = [(code, count, FINDINGS.get(code, "")) for code, count in outcome.findings.items()]
    state = "new version" if outcome.changed else "unchanged, nothing written"
    listed, taken = UNITS[outcome.kind]
    parts = [
        f"**Warning**: {outcome.untrainable}" if outcome.untrainable else "",
        f"**Ingest** of `{outcome.dataset}`: {quantity(outcome.files_listed, listed)} listed, {outcome.files_read:,} "
        f"read, {outcome.files_removed:,} gone since last time; {quantity(outcome.examples, taken)} of "
        f"{quantity(outcome.patients, 'patients')}; version `{outcome.digest[:12]}` ({state})",
        _finding_counts(outcome) if outcome.finding_counts else "",
        table(("split", "label", taken, "patients"), counts) if not outcome.finding_counts else "",
        table(("not taken in", listed, "why"), refused) if refused else "",
        _modalities(outcome),
        table(("taken in, but", taken, "what it means"), findings) if findings else "",
        _looked_for(outcome),
        _missing(outcome),
        _label_troubles(outcome),
        _mask_troubles(outcome),
        _variants(outcome),
        f"Original names of all of these: `{outcome.problems_file}` (readable by you alone)"
        if outcome.problems_file
        else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _modalities(outcome: "IngestOutcome") -> str:
    """Return a line about other modalities, with what to type where they are most of the archive."""
    others = outcome.other_modalities
    if not others:
        return ""
    # Loaded here: it takes the tables, which other outcomes do not need.
    from imaging.dataset.ingest.ingest_outcome import listed_modalities, modality_remedy

    if sum(others.values()) > outcome.examples:
        return f"**Modality**: {modality_remedy(others, outcome.modality)}"
    return f"**Modality**: {outcome.modality} is taken in; {listed_modalities(others)} left out"


def _finding_counts(outcome: "IngestOutcome") -> str:
    """Return how many images and patients have each finding and have it not, and of how many that is unknown."""
    columns = ("present", "absent", "unknown", "patients_present", "patients_absent")
    rows = [
        (split, name, *(numbers[column] for column in columns))
        for split, names in sorted(outcome.finding_counts.items())
        for name, numbers in names.items()
    ]
    head = (
        "split",
        "class" if outcome.mask_classes else "finding",
        "present",
        "absent",
        "unknown",
        "patients with it",
        "patients without",
    )
    return table(head, rows)


LINES_OF_OTHERS = "labels of an image that is of another patient, study or series than they say"
UNEVEN = "lines of the label table with more or fewer columns than its first line"


def _looked_for(outcome: "IngestOutcome") -> str:
    """Return which of two classes is looked for, and how to change it."""
    if len(outcome.classes) > 2 and outcome.decided_by == "person":
        return (
            f"**Looked for**: none of the {len(outcome.classes)} classes; `--positive` is for two classes alone and "
            "changes nothing here: leave it out"
        )
    if len(outcome.classes) != 2:
        return ""
    other, positive = outcome.classes
    line = f"**Looked for**: `{positive}`, against `{other}`"
    return {
        "person": line,
        "names": f"{line}; `--positive` changes it",
        "order": f"{line}: the names do not say which is the healthy one, and the last in their order was taken; "
        f'where that is wrong, give `--positive "{other}"`',
    }[outcome.decided_by]


def _missing(outcome: "IngestOutcome") -> str:
    counts = sorted(outcome.labels_missing.items())
    if not counts:
        return ""
    listed = ", ".join(f"{count} x `{word}`" if word else f"{count} empty" for word, count in counts)
    return f"**Missing labels**: {listed}; `--missing` changes which words stand for no label"


def _label_troubles(outcome: "IngestOutcome") -> str:
    if outcome.mask_classes:
        return ""
    _, taken = UNITS[outcome.kind]
    rows = [
        ("labels that name no image", outcome.labels_without_image),
        (f"{taken} with no label", outcome.images_without_label),
        (f"{taken} with two different labels", outcome.images_in_conflict),
        (LINES_OF_OTHERS, outcome.labels_of_others),
    ]
    count, line = outcome.labels_uneven
    if count:
        rows.append((f"{UNEVEN} (the first is line {line})", count))
    return table(("labels", "count"), rows) if any(count for _, count in rows) else ""


def _mask_troubles(outcome: "IngestOutcome") -> str:
    _, taken = UNITS[outcome.kind]
    rows = [(reason, count, REASONS[reason]) for reason, count in outcome.mask_faults.items()]
    if outcome.mask_classes and outcome.labels_without_image:
        rows.append(
            ("names-no-image", outcome.labels_without_image, "lines of the mask table that name no image")
        )
    return table(("without a mask", taken, "why"), rows) if rows else ""


def _variants(outcome: "IngestOutcome") -> str:
    if not outcome.patient_variants:
        return ""
    one = outcome.patient_variants == 1
    count = (
        f"**Patients**: {quantity(outcome.patient_variants, 'PatientIDs')} {'differs' if one else 'differ'} from "
        "another in zeros, case or blanks alone"
    )
    if outcome.variant_policy == "join":
        return f"{count} and {'was' if one else 'were'} joined with it."
    return (
        f"{count}; each counts as a patient of its own. Where it is not, the same patient may be trained on and "
        "tested on: start a new dataset: another `--name`, with `--patient-variants join`."
    )
