"""Shadow datasets: the images of a dataset, prepared as another model expects them."""

from typing import TYPE_CHECKING

from services.flow_requests import IngestRequest

if TYPE_CHECKING:
    # Loading it loads MLflow, which takes seconds that a refused request should not cost.
    from services.mlflow.registry import Registered


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
