"""Step of the features: the embedding of every example of the newest version, by a registered model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.errors import UserFault
from models.explain.features import embedding_width, features_name, write_features
from models.portable.predictor import Predictor
from services.datasets import newest_dataset
from services.flow_requests import FeaturesRequest
from services.mlflow.registry import by_alias, by_version, model_file
from services.prefect.progress import log_of, progress
from services.settings import Settings
from tasks.retry import INPUT_OUTPUT


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a dataset version: where they are in the store, and whether they were there already."""

    model: str
    digest: str
    place: str
    rows: int
    width: int
    known: bool


@task(name="write features", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def embed_dataset(request: FeaturesRequest, settings: Settings) -> Features:
    """Write the embedding of each example into the store, unless it is there."""
    name, store = request.dataset, settings.dataset_store
    version = newest_dataset(settings, name)
    model = (
        by_version(settings, name, request.version)
        if request.version is not None
        else by_alias(settings, name, "champion")
    )
    if model is None:
        which = "champion" if request.version is None else f"version {request.version}"
        raise UserFault(
            f"model {name!r} has no {which}: give --version one that was trained with an embedding"
        )
    if model.tags["spec.digest"] != version.spec.digest:
        raise UserFault(
            f"{model} expects images of preprocessing {model.tags['spec.digest']} and the dataset holds "
            f"{version.spec.digest}: train a model on this dataset"
        )
    predictor = Predictor.load(model_file(settings, model))
    width, place = embedding_width(predictor, str(model)), features_name(name, model.version, version.digest)
    if known := store.exists(place):
        rows = int(pq.read_metadata(store.local(place)).num_rows)
    else:
        metadata = {"model": model.uri, "dataset.digest": version.digest, "spec.digest": version.spec.digest}
        with tempfile.TemporaryDirectory(prefix="radloop-features-") as folder:
            path = Path(folder) / "features.parquet"
            rows = write_features(
                predictor, version, path, metadata, progress("images", "features", log_of(name))
            )
            store.put(place, path)
    log_of(name)(f"{rows} embeddings of {width} numbers by {model} are in {place}")
    return Features(model=model.uri, digest=version.digest, place=place, rows=rows, width=width, known=known)
