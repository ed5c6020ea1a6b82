"""Owns the stop of a night whose dataset has the same patient or image on two sides."""

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.split.check import find_overlaps
from imaging.dataset.split.test_lock import LOCKED
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import UserFault
from services.settings import Settings
from tasks.training import newest_dataset


@task(name="check the sides", cache_policy=NO_CACHE)
def check_sides(dataset: str, settings: Settings) -> int:
    """Return how many pairs of examples are on two sides and should not be; raise UserFault where that is grave."""
    version = newest_dataset(settings, dataset)
    found = find_overlaps(version)
    grave = _grave(version, found)
    if grave.num_rows:
        raise UserFault(
            f"{grave.num_rows} pairs of images of dataset {dataset!r} are of one patient, or nearly the same, and on "
            f"two sides of its split: `radloop dataset check {dataset}` lists them; remove the copies from the source, "
            "or start a new dataset with another --name, where such patients are drawn together"
        )
    if found.num_rows:
        print(
            f"{found.num_rows} pairs of images are nearly the same and on two sides that the source has fixed"
        )
    return int(found.num_rows)


def _grave(version: DatasetVersion, found: pa.Table) -> pa.Table:
    """Return what makes a verdict worthless: where the source fixes the sides, what is among the test patients."""
    fixed = pc.any(pc.is_valid(version.table("examples", ["source_split"])["source_split"])).as_py()
    if not fixed:
        return found
    return found.filter(pc.or_(pc.equal(found["split"], LOCKED), pc.equal(found["other_split"], LOCKED)))
