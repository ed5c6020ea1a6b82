"""Owns the check of a whole version for leaks: patients and images that are on two sides of its split."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.fingerprint import from_column
from imaging.dataset.leakage import leaks
from imaging.dataset.version import DatasetVersion

FOUND = pa.schema(
    [
        *(
            pa.field(f"{which}{name}", pa.string(), nullable=False)
            for which in ("", "other_")
            for name in ("instance_key", "patient_key", "split")
        ),
        pa.field("distance", pa.float64()),
    ]
)
"""Two examples on different sides that are near duplicates; or, without a distance, of one patient."""


def find_leaks(version: DatasetVersion) -> pa.Table:
    """Return a table `FOUND` of what leaks from one side of a version to another: the nearest first.

    What has no label is not looked at: nothing is trained on it, and nothing is judged by it.
    """
    sides = version.table("examples", ["split", "label"])
    read = pc.and_(pc.is_valid(sides["split"]), pc.is_valid(sides["label"]))
    # (pyarrow's own indices_nonzero ends the process where there are no rows.)
    rows = pa.array(np.flatnonzero(read.to_numpy()))
    told = {name: version.table("examples", [name])[name].take(rows) for name in ("patient_key", "split")}
    fingerprints = from_column(version.table("examples", ["fingerprint"])["fingerprint"].take(rows))
    found = leaks(fingerprints, told["patient_key"], told["split"]).sort_by("distance")
    if not found.num_rows:
        return FOUND.empty_table()
    told["instance_key"] = version.table("examples", ["instance_key"])["instance_key"].take(rows)
    columns = [
        told[name].take(found[end])
        for end in ("row", "other")
        for name in ("instance_key", "patient_key", "split")
    ]
    return pa.table([*columns, found["distance"]], schema=FOUND)
