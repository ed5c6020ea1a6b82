"""Owns how a de-identification and its proof are told: Markdown for Prefect's artifact and the terminal alike."""

from imaging.refusal_reasons import MEANINGS
from tasks.deidentification import DeidentifyOutcome
from tasks.report.outcomes import table


def deidentify_words(outcome: DeidentifyOutcome) -> str:
    """Tell what was written, what was kept back, and why."""
    refused = [(reason, count, MEANINGS.get(reason, "")) for reason, count in outcome.quarantined.items()]
    refused += [(reason, count, f"ignored: {MEANINGS[reason]}") for reason, count in outcome.ignored.items()]
    parts = [
        f"**De-identification** into `{outcome.destination}`: {outcome.files_listed} files listed, "
        f"{outcome.files_read} read, {outcome.files_removed} gone since last time; {outcome.objects} objects of "
        f"{outcome.patients} patients stand in it",
        table(("not passed on", "files", "why"), refused) if refused else "",
        _variants(outcome),
        f"Original names of all of these: `{outcome.problems_file}` (only its owner can read it)"
        if outcome.problems_file
        else "",
        f"Hand out `{outcome.destination}/images` alone, after a proof: `radloop deidentify --verify "
        f"{outcome.destination} --against SRC`",
    ]
    return "\n\n".join(part for part in parts if part)


def _variants(outcome: DeidentifyOutcome) -> str:
    if not outcome.patient_variants:
        return ""
    return (
        f"{outcome.patient_variants} patients have a number that differs from another one's in zeros, blanks or case "
        "alone, such as 00123 and 123; they stand as patients of their own. Where they are not: `--patient-variants "
        "join`, into a new destination"
    )
