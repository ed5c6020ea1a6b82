"""Check of the split of a whole version: near duplicate images, and patients, that are in two splits."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imaging.dataset.split.fingerprint import from_column
from imaging.dataset.split.near_duplicates import row_overlaps

if TYPE_CHECKING:
    from imaging.dataset.version.dataset_version import DatasetVersion

KEYS = ("instance_key", "patient_key", "split")
OVERLAPS = pa.schema(
    [
        *(
            pa.field(f"{which}{name}", pa.string(), nullable=False)
            for which in ("", "other_")
            for name in KEYS
        ),
        pa.field("distance", pa.float64()),
    ]
)
"""Two examples in different splits that are near duplicates; or, without a distance, of one patient."""


def find_overlaps(version: "DatasetVersion") -> pa.Table:
    """Return a table `OVERLAPS` of what the splits of a version have in common, the nearest first.

    Examples without a label are left out: nothing is trained on them, and nothing is judged by them.
    """
    rows = version.table("examples", ["patient_key", "split", "label_fault"])
    labelled = pc.and_(pc.is_valid(rows["split"]), pc.is_null(rows["label_fault"]))
    # (pyarrow's own indices_nonzero ends the process where there are no rows.)
    at = np.flatnonzero(labelled.to_numpy())
    rows = rows.select(["patient_key", "split"]).take(at)
    fingerprints = from_column(version.table("examples", ["fingerprint"])["fingerprint"].take(at))
    overlaps = row_overlaps(fingerprints, rows["patient_key"], rows["split"]).sort_by("distance")
    if not overlaps.num_rows:
        return OVERLAPS.empty_table()
    keys = version.table("examples", KEYS).take(at)
    columns = [keys[name].take(overlaps[end]) for end in ("row", "other") for name in KEYS]
    return pa.table([*columns, overlaps["distance"]], schema=OVERLAPS)
