"""Checks before any work: sources, label tables and keys are there. Prefect is not loaded."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from imaging.annotations.class_order import order_classes
from imaging.annotations.finding_table import check_finding_columns
from imaging.annotations.label_table import check_positive, label_columns
from imaging.dataset.ingest.diff import check_patients
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.deidentify.folder.deidentify_chunk import DicomOnly
from imaging.deidentify.folder.destination import Destination, DestinationRecord, check_apart
from imaging.deidentify.profile.profile import load_profile
from imaging.dicom.codecs import check_decoders
from imaging.errors import EnvironmentFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.release_compatibility import canonical
from imaging.sources.medmnist_file import MedMnistFile
from imaging.sources.open_source import open_source
from imaging.sources.protocol import Source
from models.networks.catalog import check_network
from models.objectives.objective_catalog import OBJECTIVES, check_training
from models.search_space import draw_trials
from services.flow_requests import (
    DeidentifyRequest,
    EvaluateRequest,
    FeaturesRequest,
    IngestRequest,
    NightlyRequest,
    ReevaluateRequest,
    TrainRequest,
    TuneRequest,
)
from services.label_tables import finding_query, label_paths
from services.mask_input import check_masks, patient_table
from services.mlflow.registry_peek import peek_champions, peek_versions
from services.server_checks import check_servers
from services.settings import Settings
from services.start_weights import check_weights

REMEDY = "give --source a folder or archive with images, s3://BUCKET/PREFIX, dicomweb+https://HOST/PATH or an NPZ file"
ROOM_BYTES = 100 * 10**6
"""What the databases of a home and a small model take."""


def check_input(request: IngestRequest) -> Source:
    """Return the source, after a look at it and at its label table; nothing is written."""
    if not request.source:
        raise UserFault(f"no source was given: {REMEDY}")
    paths = label_paths(request)
    table = patient_table(request)
    if request.masks:
        check_masks(request)
    elif request.has_findings:
        if not paths:
            raise UserFault(
                "findings are read from a table: give --labels LABELS.csv, or leave --findings out"
            )
        check_finding_columns(paths, finding_query(request))
    elif table:
        label_columns(table, request.label_column)
    source = open_source(request.source, table)
    if source.kind != "medmnist":
        check_decoders()
    if next(source.scan(), None) is None:
        raise UserFault(f"{request.source} holds no files: {REMEDY}")
    if request.masks and source.kind == "medmnist":
        raise UserFault(
            "an NPZ file has no files that masks could be of: give a folder, an archive or a server"
        )
    if not (table or request.masks) and source.kind != "medmnist":
        raise UserFault(
            f"{request.source} carries no labels: give --labels LABELS.csv, for pictures and NIfTI "
            "with the columns file, PatientID and label"
        )
    if request.positive is not None and paths:
        check_positive(paths[0], request.positive, request.label_column, missing=request.missing)
    elif request.positive is not None and isinstance(source, MedMnistFile):
        order_classes(
            (str(label) for part in source.labels.values() for label in set(part)), request.positive
        )
    return source


def check_modality(request: IngestRequest, source: Source) -> None:
    """Raise UserFault for pictures whose preparation a person describes without a modality: they would become CT."""
    given = request.preprocess
    if given is None or "modality" in given.model_fields_set or source.kind == "medmnist":
        return
    usual = source.default_spec().modality
    if usual != given.modality:
        raise UserFault(
            f"pictures state no modality, and with --window or `preprocess` alone they would be taken as "
            f"{given.modality}: add --modality {usual} (other), or what they are"
        )


def open_places(request: DeidentifyRequest) -> tuple[Source, Destination]:
    """Return source and destination, after a look at both; nothing is written."""
    if not request.source or not request.destination:
        raise UserFault("give the source and the destination: radloop deidentify SRC DST")
    load_profile()
    check_decoders()
    source = open_source(request.source)
    if source.kind == "medmnist":
        raise UserFault(
            "an .npz file holds no DICOM objects: give a folder, an archive, s3:// or dicomweb+https://"
        )
    destination = Destination(Path(request.destination).expanduser().resolve())
    if "://" not in request.source:
        check_apart(Path(request.source).expanduser(), destination.root)
    if next(source.scan(), None) is None:
        raise UserFault("the source holds no files: is it mounted, and the right one?")
    return DicomOnly(source), destination


def existing_key(settings: Settings, destination: Destination) -> Pseudonyms:
    """Return the key; one is made only where nothing was made with another before."""
    known = known_key(settings)
    if known is None and destination.exists():
        raise EnvironmentFault(
            f"{destination.root} was made with a key and there is none at {settings.private / 'pseudonym.key'}: "
            "restore it from your backup, set RADLOOP_KEY, or give a new destination"
        )
    return known or settings.pseudonyms()


def known_key(settings: Settings) -> Pseudonyms | None:
    """Return the pseudonyms where there is a key; none is made. Raises EnvironmentFault for a key of another form."""
    there = settings.key is not None or (settings.private / "pseudonym.key").exists()
    return settings.pseudonyms() if there else None


def made_with(request: DeidentifyRequest, key_fingerprint: str) -> DestinationRecord:
    """Return what a destination of this request has to be made with."""
    profile = load_profile()
    return DestinationRecord(
        key_fingerprint=key_fingerprint,
        options=canonical(request.options),
        edition=profile.edition,
        profile_sha256=profile.sha256,
    )


def newest_dataset(settings: Settings, dataset: str) -> DatasetVersion:
    """Return the newest version of a dataset; there must be one."""
    version = newest_version(settings.dataset_store, dataset)
    if version is None:
        raise UserFault(
            f"there is no dataset {dataset!r} in {settings.dataset_place}: run `radloop ingest` first"
        )
    return version


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
    CHECKS[flow](request, settings)
    check_room(settings.folder, "the home", "give --home a folder that can be written")
    if settings.store and "://" not in settings.store:
        check_room(settings.store_root, "the store", "set RADLOOP_STORE to a folder that can be written")


def _check_nightly(request: NightlyRequest, settings: Settings) -> None:
    spec = _check_ingest(request, settings)
    config = request.training
    check_network(config.network, OBJECTIVES[config.objective].network_output, spec)
    check_weights(config, settings)


def _check_ingest(request: IngestRequest, settings: Settings) -> PreprocessSpec:
    """Return how the images of the source would be prepared."""
    source = check_input(request)
    check_modality(request, source)
    spec = request.preprocess or source.default_spec()
    key, version = known_key(settings), newest_version(settings.dataset_store, request.dataset)
    if version is None:
        return spec
    if key is None:
        raise EnvironmentFault(
            f"dataset {request.dataset!r} was made with the key {version.head.key_fingerprint} and there is none at "
            f"{settings.private / 'pseudonym.key'}: restore the key file, set RADLOOP_KEY, or start a new dataset "
            "with another --name"
        )
    check_patients(version.head, replace(key, patient_variants=request.patient_variants))
    return spec


def _check_train(request: TrainRequest, settings: Settings) -> None:
    version = newest_dataset(settings, request.dataset)
    check_training(request.training, version)
    check_weights(request.training, settings)


def _check_tune(request: TuneRequest, settings: Settings) -> None:
    version = newest_dataset(settings, request.dataset)
    for trial in draw_trials(request.training, request.search):
        check_training(trial, version)


def _check_evaluate(request: EvaluateRequest, settings: Settings) -> None:
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


def _check_features(request: FeaturesRequest, settings: Settings) -> None:
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


def _check_reevaluate(request: ReevaluateRequest, settings: Settings) -> None:
    if request.source:
        _check_ingest(request, settings)
    else:
        newest_dataset(settings, request.dataset)
    check_servers(settings)
    if not any(model.version for model in peek_champions(settings) if model.name == request.dataset):
        raise UserFault(
            f"model {request.dataset!r} has no champion yet: `radloop run` trains one and lets it prove itself"
        )


def _check_deidentify(request: DeidentifyRequest, settings: Settings) -> None:
    _, destination = open_places(request)
    # A destination that is new has no key to compare with.
    key = existing_key(settings, destination) if destination.exists() else known_key(settings)
    destination.check(made_with(request, key.fingerprint if key else ""))
    check_room(destination.root, "the destination", "give another one")


CHECKS: Mapping[str, Callable[[Any, Settings], object]] = MappingProxyType(
    {
        "ingest": _check_ingest,
        "nightly": _check_nightly,
        "train": _check_train,
        "tune": _check_tune,
        "evaluate": _check_evaluate,
        "reevaluate": _check_reevaluate,
        "features": _check_features,
        "deidentify": _check_deidentify,
    }
)
"""By the name of the flow."""
