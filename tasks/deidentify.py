"""Owns the steps of de-identification: hold the source against the ledger, work through chunks, sweep."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DeidentifyOutcome:
    """What a de-identification did, in numbers; it holds no identifier."""

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
