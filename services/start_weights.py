"""Weights that a training starts from: what names them, and their place in the store under the digest of their bytes.

A configuration that is carried out names them by that digest alone: the same weights make the same model, wherever
they came from, and every node of a cluster finds them.
"""

import re
import shutil
import tempfile
from pathlib import Path

from imaging.errors import UserFault
from imaging.store.content_digest import file_digest
from models.config import TrainConfig
from models.networks.weights_file import STORED, check_network_of, read_description, stored_name
from services.flow_requests import absolute_place
from services.mlflow.registry_peek import peek_champions, peek_versions
from services.settings import Settings

REGISTERED = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:/(?P<version>[0-9]+)|@champion)")
DIGEST = re.compile(f"{STORED}[0-9a-f]{{64}}")


def check_weights(config: TrainConfig, settings: Settings) -> None:
    """Raise UserFault where the weights are not there or of another network; MLflow is not loaded."""
    weights = config.start.weights
    if not weights:
        return
    if match := _registered(weights):
        _version(match, settings)
    else:
        path = _file(weights, settings)
        check_network_of(read_description(path), config.network, weights)


def named_by_content(config: TrainConfig, settings: Settings, *, keep: bool = True) -> TrainConfig:
    """Return a configuration that names its weights by their digest; they are put into the store where `keep`."""
    weights = config.start.weights
    if not weights or DIGEST.fullmatch(weights):
        return config
    path = _registered_file(match, settings) if (match := _registered(weights)) else _file(weights, settings)
    check_network_of(read_description(path), config.network, weights)
    name = f"{STORED}{file_digest(path)}"
    store = settings.dataset_store
    if keep and not store.exists(stored_name(name)):
        with tempfile.TemporaryDirectory(prefix="radloop-weights-") as folder:
            store.put(stored_name(name), Path(shutil.copy(path, folder)))
    return _with(config, name)


def with_absolute_weights(config: TrainConfig) -> TrainConfig:
    """Return a configuration whose file of weights is found from every folder."""
    if not Path(config.start.weights).expanduser().is_file():
        return config
    return _with(config, absolute_place(config.start.weights))


def _with(config: TrainConfig, weights: str) -> TrainConfig:
    return config.model_copy(update={"start": config.start.model_copy(update={"weights": weights})})


def _registered(weights: str) -> re.Match[str] | None:
    """Return the parts of a registered model's name; a file of that name comes first."""
    return None if Path(weights).expanduser().exists() else REGISTERED.fullmatch(weights)


def _file(weights: str, settings: Settings) -> Path:
    if DIGEST.fullmatch(weights):
        return settings.dataset_store.local(stored_name(weights))
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserFault(
            f"there are no weights at {weights}: give start.weights a safetensors file, models:/NAME/VERSION or "
            "models:/NAME@champion"
        )
    return path


def _version(match: re.Match[str], settings: Settings) -> int:
    """Return the number of a registered version that is there."""
    name, version = match["name"], match["version"]
    if version is None:
        champion = next((one.version for one in peek_champions(settings) if one.name == name), None)
        if champion is None:
            raise UserFault(
                f"model {name!r} has no champion to start from: give models:/{name}/VERSION or a file"
            )
        return champion
    if int(version) not in (known := peek_versions(settings, name)):
        there = f"choose one of {', '.join(map(str, known))}" if known else "there is no model of that name"
        raise UserFault(f"model {name!r} has no version {version} to start from: {there}")
    return int(version)


def _registered_file(match: re.Match[str], settings: Settings) -> Path:
    # Loading it takes seconds.
    from services.mlflow import registry, run_weights

    model = registry.by_version(settings, match["name"], _version(match, settings))
    assert model is not None
    return run_weights.weights_of(settings, model)
