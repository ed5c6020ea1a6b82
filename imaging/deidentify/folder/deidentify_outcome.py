"""Outcome of a de-identification: numbers without identifiers, and a private list of the files not passed on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from imaging.deidentify.folder.destination import Destination
from imaging.deidentify.folder.file_ledger import REMOVED, ReadPlan, latest
from imaging.private_list import PROBLEMS, write_private_list
from imaging.refusal_reasons import IGNORED


@dataclass(frozen=True, kw_only=True)
class DeidentifyOutcome:
    """What a de-identification did, in numbers; it has no identifier.

    `objects` and `patients` are those in the destination. `patient_variants` counts the patients whose number is
    spelled like that of another one ("00123", "123").
    """

    destination: str
    files_listed: int
    files_read: int
    files_removed: int
    objects: int
    patients: int
    patient_variants: int
    quarantined: Mapping[str, int]
    ignored: Mapping[str, int]
    problems_file: str | None


def deidentify_outcome(destination: Destination, plan: ReadPlan, private: Path) -> DeidentifyOutcome:
    """Return what was done; original names of what was not passed on are listed in the folder `private`."""
    rows = latest(destination.ledger.read())
    rows = rows.filter(pc.not_equal(rows["reason"], REMOVED))
    outputs = rows.filter(pc.not_equal(rows["output"], ""))
    reasons = Counter(rows.filter(pc.equal(rows["output"], ""))["reason"].to_pylist())
    patients = _patients(outputs)
    problems = _write_problems(rows, plan, private / f"problems-deidentify-{destination.root.name}.csv")
    return DeidentifyOutcome(
        destination=str(destination.root),
        files_listed=len(plan.files),
        files_read=len(plan.to_read),
        files_removed=plan.removed.num_rows,
        objects=len(pc.unique(outputs["output"])),
        patients=len(patients),
        patient_variants=sum(count for count in Counter(patients.values()).values() if count > 1),
        quarantined={reason: count for reason, count in reasons.most_common() if reason not in IGNORED},
        ignored={reason: count for reason, count in reasons.most_common() if reason in IGNORED},
        problems_file=str(problems) if problems else None,
    )


def _patients(outputs: pa.Table) -> dict[str, str]:
    """Return the patients by their new numbers, each with what all spellings of the number share."""
    patients: dict[str, str] = {}
    for batch in outputs.select(["output", "variant_key"]).to_batches(max_chunksize=65536):
        output, variant = (column.to_pylist() for column in batch.columns)
        patients |= {name.split("/")[1]: key for name, key in zip(output, variant, strict=True)}
    return patients


def _write_problems(rows: pa.Table, plan: ReadPlan, path: Path) -> Path | None:
    refused = rows.filter(pc.not_equal(rows["reason"], "")).to_pylist()
    if not refused:
        path.unlink(missing_ok=True)
        return None
    why = {row["source_key"]: (row["reason"], row["detail"]) for row in refused}
    files = zip(plan.keys.to_pylist(), plan.files, strict=True)
    listed = (("file", file.name, *why[key]) for key, file in files if key in why)
    write_private_list(path, PROBLEMS, listed)
    return path
