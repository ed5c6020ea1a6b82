"""Owns what a dataset must hold before an honest model can be trained on it and judged."""

from imaging.dataset.split.assignment import SPLITS
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import UserFault


def check_trainable(version: DatasetVersion) -> None:
    """Raise UserFault for fewer than two classes, or a class without a patient in each split."""
    counts = version.counts()
    if len(version.classes) < 2:
        found = f"only {version.classes[0]!r}" if version.classes else "no label at all"
        raise UserFault(
            f"dataset {version.head.dataset!r} has {found} on its images and training needs two classes or more: "
            "check the label table and its label column"
        )
    for split in SPLITS:
        for name in version.classes:
            if name not in counts.get(split, {}):
                patients = sum(part.get(name, {}).get("patients", 0) for part in counts.values())
                raise UserFault(
                    f"too few patients for the splits: class {name!r} has {patients} patients and none in {split!r}; "
                    "it needs at least one in each of train, val and test: add labelled patients"
                )
