"""Owns the check of a whole version for leaks: patients and images that are on two sides of its split."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.split.fingerprint import from_column
from imaging.dataset.split.near_duplicates import leaks
from imaging.dataset.version.dataset_version import DatasetVersion

KEYS = ("instance_key", "patient_key", "split")
FOUND = pa.schema(
    [
        *(
            pa.field(f"{which}{name}", pa.string(), nullable=False)
            for which in ("", "other_")
            for name in KEYS
        ),
        pa.field("distance", pa.float64()),
    ]
)
"""Two examples on different sides that are near duplicates; or, without a distance, of one patient."""


def find_leaks(version: DatasetVersion) -> pa.Table:
    """Return a table `FOUND` of what leaks from one side of a version to another: the nearest first.

    What has no label is not looked at: nothing is trained on it, and nothing is judged by it.
    """
    told = version.table("examples", ["patient_key", "split", "label"])
    read = pc.and_(pc.is_valid(told["split"]), pc.is_valid(told["label"]))
    # (pyarrow's own indices_nonzero ends the process where there are no rows.)
    rows = np.flatnonzero(read.to_numpy())
    told = told.select(["patient_key", "split"]).take(rows)
    fingerprints = from_column(version.table("examples", ["fingerprint"])["fingerprint"].take(rows))
    found = leaks(fingerprints, told["patient_key"], told["split"]).sort_by("distance")
    if not found.num_rows:
        return FOUND.empty_table()
    told = version.table("examples", KEYS).take(rows)
    columns = [told[name].take(found[end]) for end in ("row", "other") for name in KEYS]
    return pa.table([*columns, found["distance"]], schema=FOUND)
