"""Weights of a version's network, an artifact of its run, from which another training may start."""

from pathlib import Path

import mlflow

from imaging.errors import UserFault
from models.networks.weights_file import WEIGHTS_FILE
from services.mlflow.registry import Registered
from services.mlflow.runs import reachable
from services.settings import Settings


def log_weights(settings: Settings, run_id: str, path: Path) -> None:
    """Keep a file of weights, of the name `WEIGHTS_FILE`, under a run."""
    with reachable(settings) as client:
        client.log_artifact(run_id, str(path))


def weights_of(settings: Settings, model: Registered) -> Path:
    """Fetch the weights of a version, and return where they lie; raise UserFault where none were kept."""
    with reachable(settings) as client:
        mlflow.set_tracking_uri(settings.tracking_uri)
        if any(file.path == WEIGHTS_FILE for file in client.list_artifacts(model.run_id)):
            place = f"runs:/{model.run_id}/{WEIGHTS_FILE}"
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=place))
    raise UserFault(
        f"{model} has no {WEIGHTS_FILE} to start from, because an earlier release made it: train it again, or give "
        "a safetensors file"
    )
