"""Split check: stop a night whose dataset has the same patient or image in two splits."""

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.split.check import find_overlaps
from imaging.dataset.split.test_lock import LOCKED
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import UserFault
from services.datasets import newest_dataset
from services.settings import Settings


@task(name="check the sides", cache_policy=NO_CACHE)
def check_splits(dataset: str, settings: Settings) -> int:
    """Return how many pairs of examples overlap: of one patient, or nearly the same, and in two splits.

    Raises UserFault where they make a verdict worthless.
    """
    version = newest_dataset(settings, dataset)
    overlaps = find_overlaps(version)
    grave = _grave(version, overlaps)
    if grave.num_rows:
        raise UserFault(
            f"{grave.num_rows} pairs of images of dataset {dataset!r} are of one patient, or nearly the same, and in "
            f"two splits: `radloop dataset check {dataset}` lists them; remove the copies from the source, "
            "or start a new dataset with another --name, where such patients are drawn together"
        )
    if overlaps.num_rows:
        print(
            f"{dataset}: {overlaps.num_rows} pairs of images are nearly the same and in two splits that the source has "
            "fixed"
        )
    return int(overlaps.num_rows)


def _grave(version: DatasetVersion, overlaps: pa.Table) -> pa.Table:
    """Return the overlaps that make a verdict worthless: where the source fixes the splits, those of test patients."""
    fixed = pc.any(pc.is_valid(version.table("examples", ["source_split"])["source_split"])).as_py()
    if not fixed:
        return overlaps
    return overlaps.filter(
        pc.or_(pc.equal(overlaps["split"], LOCKED), pc.equal(overlaps["other_split"], LOCKED))
    )
