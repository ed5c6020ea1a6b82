"""Outcomes of flows as Markdown, for Prefect's artifacts and the terminal alike."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from imaging.quantities import quantity
from imaging.refusal_reasons import MEANINGS
from models.objectives.objective_catalog import objective_class_of, useless_in_validation
from tasks.report.ingest_summary import ingest_markdown
from tasks.report.markdown_table import table

if TYPE_CHECKING:
    # A flow loads its own outcome's module alone, and not those of all others.
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
    measures = measures_markdown(evaluation.measures, evaluation.champion_measures, units=evaluation.units)
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
            f"chosen is the one with the best epoch by the validation {search.config.compared_by}",
            table(("trial", "differs by", "epochs", search.config.compared_by, "failed with"), rows),
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
        measures_markdown(evaluation.measures, evaluation.champion_measures, beside, evaluation.units),
    ]
    return "\n\n".join(part for part in parts if part)


def remeasured_markdown(before: str, outcome: "Reevaluation", day: str) -> str:
    """Return the description of a champion with its newest re-evaluation, in place of an earlier one."""
    kept = before.partition(REMEASURED)[0].rstrip()
    return (
        f"{kept}\n\n{REMEASURED} {day}, dataset version `{outcome.dataset_digest[:12]}`: **{outcome.headline}**\n\n"
        f"{measures_markdown(outcome.measures, {}, units=outcome.units)}"
    ).lstrip()


def reevaluation_markdown(outcome: "Reevaluation") -> str:
    """Return the measures of the champion on the newest data."""
    measures = measures_markdown(outcome.measures, {}, units=outcome.units)
    if outcome.useless:
        return f"**Warning: {outcome.headline}**\n\n{measures}"
    return f"{measures}\n\n**{outcome.headline}**"


def measures_markdown(
    measures: Mapping[str, "Measure"],
    champion: Mapping[str, "Measure"],
    beside: str = "champion",
    units: str = "images",
) -> str:
    """Return a table of measures with their 95 % patient-bootstrap intervals; `beside` is the champion's name."""
    some = next(iter(measures.values()))
    rows = [(measure.title, measure, champion.get(name, "")) for name, measure in measures.items()]
    head = f"test set: {quantity(some.examples, units)} of {quantity(some.patients, 'patients')}"
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


def _variants_apart(outcome: "DeidentifyOutcome") -> str:
    if not outcome.patient_variants:
        return ""
    return (
        f"{quantity(outcome.patient_variants, 'patients')} with a number that differs from another one's in zeros, "
        "blanks or case alone, such as 00123 and 123; each is a patient of its own. Where it is not: "
        "`--patient-variants join`, into a new destination"
    )
