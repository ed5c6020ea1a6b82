"""Checks of a request before any work, by the name of its flow. Prefect is not loaded."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from imaging.errors import EnvironmentFault, UserFault
from models.objectives.objective_catalog import check_training
from models.search_space import draw_trials
from services.datasets import newest_dataset
from services.flow_requests import (
    DeidentifyRequest,
    EvaluateRequest,
    FeaturesRequest,
    TrainRequest,
    TuneRequest,
)
from services.mlflow.registry_peek import peek_versions
from services.server_checks import check_servers
from services.settings import Settings
from services.start_weights import check_weights

ROOM_BYTES = 100 * 10**6
"""What the databases of a home and a small model take."""


def check_room(folder: Path, what: str, remedy: str) -> None:
    """Raise EnvironmentFault where a folder, or the one it would be made in, cannot be written or is full."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise EnvironmentFault(f"cannot make {what} {folder} ({there} is a file): {remedy}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentFault(f"cannot write to {what} {folder} (read-only, or another's folder): {remedy}")
    free = shutil.disk_usage(there).free
    if free < ROOM_BYTES:
        raise EnvironmentFault(
            f"{what} {folder} has {free / 1e6:.0f} MB left and a run needs {ROOM_BYTES / 1e6:.0f} MB: free some, "
            f"or {remedy}"
        )


def check_request(flow: str, request: Any, settings: Settings) -> None:
    """Refuse a request that cannot succeed, before Prefect, Ray or MLflow load; nothing is written."""
    check: Callable[[Any, Settings], object] = resolve_name(CHECKS[flow])
    check(request, settings)
    check_room(settings.folder, "the home", "give --home a folder that can be written")
    if settings.store and "://" not in settings.store:
        check_room(settings.store_root, "the store", "set RADLOOP_STORE to a folder that can be written")
    if isinstance(request, DeidentifyRequest):
        check_room(Path(request.destination).expanduser().resolve(), "the destination", "give another one")


def check_train(request: TrainRequest, settings: Settings) -> None:
    """Refuse a training that cannot succeed."""
    version = newest_dataset(settings, request.dataset)
    check_training(request.training, version)
    check_weights(request.training, settings)


def check_tune(request: TuneRequest, settings: Settings) -> None:
    """Refuse a search that cannot succeed."""
    version = newest_dataset(settings, request.dataset)
    for trial in draw_trials(request.training, request.search):
        check_training(trial, version)


def check_evaluate(request: EvaluateRequest, settings: Settings) -> None:
    """Refuse an evaluation that cannot succeed."""
    newest_dataset(settings, request.dataset)
    check_servers(settings)
    versions = peek_versions(settings, request.dataset)
    if not versions:
        raise UserFault(
            f"the registry at {settings.tracking_uri} has no model {request.dataset!r}: run `radloop train` first"
        )
    if request.version is not None and request.version not in versions:
        raise UserFault(
            f"model {request.dataset!r} has no version {request.version}: give --version one of "
            f"{', '.join(map(str, versions))}"
        )


def check_features(request: FeaturesRequest, settings: Settings) -> None:
    """Refuse features that cannot be computed."""
    newest_dataset(settings, request.dataset)
    check_servers(settings)
    if request.version is not None and request.version not in (
        versions := peek_versions(settings, request.dataset)
    ):
        there = (
            f"give --version one of {', '.join(map(str, versions))}"
            if versions
            else "run `radloop train` first"
        )
        raise UserFault(f"model {request.dataset!r} has no version {request.version}: {there}")


CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "ingest": "services.input_checks:check_ingest",
        "nightly": "services.input_checks:check_nightly",
        "reevaluate": "services.input_checks:check_reevaluate",
        "deidentify": "services.destination_checks:check_deidentify",
        **{flow: f"services.preflight:check_{flow}" for flow in ("train", "tune", "evaluate", "features")},
    }
)
"""Function by the name of the flow. Its module is loaded where it is needed: the readers of files take long to load."""
