"""Outcomes of flows as Markdown, for Prefect's artifacts and the terminal alike."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from imaging.dicom.findings import FINDINGS
from imaging.preprocess.spec import UNITS
from imaging.quantities import quantity
from imaging.refusal_reasons import IGNORED, MEANINGS, REASONS
from models.objectives.objective_catalog import objective_class_of, useless_in_validation

if TYPE_CHECKING:
    # A flow loads its own outcome's module alone, and not those of all others.
    from imaging.dataset.ingest.ingest_outcome import IngestOutcome
    from imaging.deidentify.folder.deidentify_outcome import DeidentifyOutcome
    from imaging.statistics.intervals import Measure
    from tasks.evaluation import Evaluation
    from tasks.features import Features
    from tasks.reevaluation import Reevaluation
    from tasks.reporting import NightlyReport
    from tasks.search import TuneOutcome
    from tasks.training import TrainOutcome


REMEASURED = "Measured again on"
"""Beginning of the part of a description that a re-evaluation writes anew."""


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


def training_markdown(outcome: "TrainOutcome") -> str:
    """Return what was trained, epoch by epoch."""
    candidate = outcome.candidate
    how = (
        f"trained for {quantity(len(outcome.history), 'epochs')}"
        if outcome.trained_now
        else "trained earlier on the same data"
    )
    name, title = next(iter(objective_class_of(candidate.tags).epoch_titles.items()))
    rows = [
        # Stored epochs count from 0, people from 1.
        (f"{row['epoch'] + 1:.0f}", *(f"{row[key]:.3f}" for key in ("train_loss", "val_loss", f"val_{name}")))
        for row in outcome.history
    ]
    history = table(("epoch", "train loss", "val loss", f"val {title}"), rows) if rows else ""
    useless = useless_in_validation(candidate.tags)
    warning = f"**Warning: version {candidate.version} is of no use**: {useless}" if useless else ""
    head = (
        f"**Training**: version {candidate.version} of `{candidate.name}`, {candidate.tags['network']}, {how}"
    )
    return "\n\n".join(part for part in (warning, head, history) if part)


def evaluation_markdown(evaluation: "Evaluation") -> str:
    """Return the measures of candidate and champion on the test patients, and the verdict."""
    measures = measures_markdown(evaluation.measures, evaluation.champion_measures)
    if evaluation.verdict.useless:
        return f"**Warning: {evaluation.verdict.headline}**\n\n{measures}"
    return f"{measures}\n\n**{evaluation.verdict.headline}**"


def tuning_markdown(outcome: "TuneOutcome") -> str:
    """Return the trials, the best one, and what the gate made of it."""
    search = outcome.search
    rows = [
        (
            f"{number + 1}{' (best)' if number == search.best else ''}",
            search.changes[number] or "the training as it was given",
            len(trial.history),
            "" if trial.merit is None else f"{trial.merit[0]:.4f}",
            trial.error.strip().splitlines()[-1] if trial.error else "",
        )
        for number, trial in enumerate(search.trials)
    ]
    return "\n\n".join(
        [
            f"**Search** on `{search.dataset}`: {quantity(len(search.trials), 'trials')} in {search.seconds:.0f} s; "
            f"chosen is the one with the best epoch by the validation {search.config.measure}",
            table(("trial", "differs by", "epochs", search.config.measure, "failed with"), rows),
            training_markdown(outcome.trained),
            evaluation_markdown(outcome.evaluation),
        ]
    )


def version_markdown(evaluation: "Evaluation", report: str = "") -> str:
    """Return the description of a candidate's version on MLflow's page; `report` is the link to the night's report."""
    candidate, champion = evaluation.candidate, evaluation.champion
    beside = f"champion, version {champion.version}" if champion else ""
    made = [
        f"Network `{candidate.tags['network']}`" if "network" in candidate.tags else "",
        f"dataset `{candidate.name}`, version `{candidate.tags['dataset.digest'][:12]}`"
        if "dataset.digest" in candidate.tags
        else "",
        f"compared with version {champion.version}" if champion else "compared with no champion",
    ]
    parts = [
        # Not bold: the list of versions shows its first words as they are written.
        f"{'Warning: ' if evaluation.verdict.useless else ''}{evaluation.verdict.headline}",
        f"[Report of the night]({report})" if report else "",
        ", ".join(part for part in made if part),
        measures_markdown(evaluation.measures, evaluation.champion_measures, beside),
    ]
    return "\n\n".join(part for part in parts if part)


def remeasured_markdown(before: str, outcome: "Reevaluation", day: str) -> str:
    """Return the description of a champion with its newest re-evaluation, in place of an earlier one."""
    kept = before.partition(REMEASURED)[0].rstrip()
    return (
        f"{kept}\n\n{REMEASURED} {day}, dataset version `{outcome.dataset_digest[:12]}`: **{outcome.headline}**\n\n"
        f"{measures_markdown(outcome.measures, {})}"
    ).lstrip()


def reevaluation_markdown(outcome: "Reevaluation") -> str:
    """Return the measures of the champion on the newest data."""
    measures = measures_markdown(outcome.measures, {})
    if outcome.useless:
        return f"**Warning: {outcome.headline}**\n\n{measures}"
    return f"{measures}\n\n**{outcome.headline}**"


def measures_markdown(
    measures: Mapping[str, "Measure"], champion: Mapping[str, "Measure"], beside: str = "champion"
) -> str:
    """Return a table of measures with their 95 % patient-bootstrap intervals; `beside` is the champion's name."""
    some = next(iter(measures.values()))
    rows = [(measure.title, measure, champion.get(name, "")) for name, measure in measures.items()]
    head = f"test set: {quantity(some.examples, 'images')} of {quantity(some.patients, 'patients')}"
    return table((head, "this model", beside if champion else ""), rows)


def nightly_markdown(night: "NightlyReport", outside_s: Mapping[str, float] = MappingProxyType({})) -> str:
    """Return a whole night; `outside_s` are seconds that passed before and around it."""
    timings = {**outside_s, **night.all_timings}
    parts = [
        ingest_markdown(night.ingested),
        training_markdown(night.trained),
        evaluation_markdown(night.evaluation),
        table(
            ("where the time went", "s"), [(stage, f"{seconds:.1f}") for stage, seconds in timings.items()]
        ),
        f"Report: `{night.report}`",
    ]
    return "\n\n".join(parts)


def deidentification_markdown(outcome: "DeidentifyOutcome") -> str:
    """Return what was written, what was kept back, and why."""
    refused = [(reason, count, MEANINGS.get(reason, "")) for reason, count in outcome.quarantined.items()]
    refused += [(reason, count, f"ignored: {MEANINGS[reason]}") for reason, count in outcome.ignored.items()]
    parts = [
        f"**De-identification** into `{outcome.destination}`: {quantity(outcome.files_listed, 'files')} listed, "
        f"{outcome.files_read:,} read, {outcome.files_removed:,} gone since last time; "
        f"{quantity(outcome.objects, 'objects')} of {quantity(outcome.patients, 'patients')} "
        f"{'stands' if outcome.objects == 1 else 'stand'} in it",
        table(("not passed on", "files", "why"), refused) if refused else "",
        _variants_apart(outcome),
        f"Original names of all of these: `{outcome.problems_file}` (only its owner can read it)"
        if outcome.problems_file
        else "",
        f"Hand out `{outcome.destination}/images` alone, after a proof: `radloop deidentify --verify "
        f"{outcome.destination} --against SRC`",
    ]
    return "\n\n".join(part for part in parts if part)


def features_markdown(outcome: "Features") -> str:
    """Return where the features are."""
    state = "were there already" if outcome.known else "were written"
    return (
        f"**Features**: {quantity(outcome.rows, 'embeddings')} of {outcome.width} numbers by `{outcome.model}` "
        f"{state}: "
        f"`{outcome.place}` of the store, of the dataset version `{outcome.digest[:16]}`"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table.

    >>> print(table(("a", "b"), [(1, 2)]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [
        "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |" for cells in (head, *rows)
    ]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


RENDERERS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "ingest": ingest_markdown,
        "train": training_markdown,
        "tune": tuning_markdown,
        "evaluate": evaluation_markdown,
        "reevaluate": reevaluation_markdown,
        "features": features_markdown,
        "deidentify": deidentification_markdown,
    }
)
"""By the name of the flow; a night comes with times of its own."""


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


def _variants_apart(outcome: "DeidentifyOutcome") -> str:
    if not outcome.patient_variants:
        return ""
    return (
        f"{quantity(outcome.patient_variants, 'patients')} with a number that differs from another one's in zeros, "
        "blanks or case alone, such as 00123 and 123; each is a patient of its own. Where it is not: "
        "`--patient-variants join`, into a new destination"
    )
