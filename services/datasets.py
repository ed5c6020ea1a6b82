"""Datasets of a request: the newest version, and the shadow of a dataset, prepared as another model expects it."""

from typing import TYPE_CHECKING

from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.errors import UserFault
from services.flow_requests import IngestRequest
from services.settings import Settings

if TYPE_CHECKING:
    # Loading it loads MLflow, which takes seconds that a refused request should not cost.
    from services.mlflow.registry import Registered


def newest_dataset(settings: Settings, dataset: str) -> DatasetVersion:
    """Return the newest version of a dataset; there must be one."""
    version = newest_version(settings.dataset_store, dataset)
    if version is None:
        raise UserFault(
            f"there is no dataset {dataset!r} in {settings.dataset_place}: run `radloop ingest` first"
        )
    return version


def ingest_part(request: IngestRequest, like: "Registered | None" = None) -> IngestRequest:
    """Return what ingest needs of a larger request; `like` prepares a second dataset as that model expects it."""
    part = IngestRequest.model_validate(request.model_dump(include=set(IngestRequest.model_fields)))
    if like is None:
        return part
    return part.model_copy(update={"preprocess": like.spec, "dataset": shadow_name(request.dataset, like)})


def shadow_name(dataset: str, model: "Registered") -> str:
    """Return the name of the dataset that holds the same images, prepared as another model expects them."""
    return f"{dataset}--{model.tags['spec.digest']}"


def is_shadow(dataset: str) -> bool:
    """Return whether a dataset serves another model alone: its rows are looked up, never split."""
    return "--" in dataset
