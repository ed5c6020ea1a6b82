"""Owns which patients of a version may be one, as their PatientIDs differ in zeros, case or blanks alone."""

from collections import defaultdict
from collections.abc import Mapping

from imaging.dataset.version.dataset_version import DatasetVersion

COLUMNS = ["patient_key", "patient_variant"]


def patient_variants(version: DatasetVersion) -> Mapping[str, str]:
    """Return the shared pseudonym of each variant by its own; of patients without variants there is none.

    Under the policy "report" each variant is a patient of the version; under "join" the shared pseudonym is.
    """
    shared: dict[str, set[str]] = defaultdict(set)
    for pair in version.table("examples", COLUMNS).group_by(COLUMNS).aggregate([]).to_pylist():
        one, other = own_and_shared(version, pair[COLUMNS[0]], pair[COLUMNS[1]])
        shared[other].add(one)
    return {own: one for one, all_own in shared.items() if len(all_own) > 1 for own in all_own}


def own_and_shared(version: DatasetVersion, patient_key: str, patient_variant: str) -> tuple[str, str]:
    """Return a row's pseudonym by its PatientID as it was written, and the one that its variants share."""
    # A row older than the policy has only one: the right one of both where its PatientID was plain.
    variant = patient_variant or patient_key
    return (variant, patient_key) if version.head.patient_variants == "join" else (patient_key, variant)
