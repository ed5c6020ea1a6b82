"""Checks of an ingest before any work: sources, tables, masks and the key are there, and what they say can be read."""

from dataclasses import replace

from imaging.annotations.class_order import order_classes
from imaging.annotations.finding_table import check_finding_columns
from imaging.annotations.label_table import check_positive, label_columns
from imaging.dataset.ingest.diff import check_patients
from imaging.dataset.version.dataset_version import newest_version
from imaging.dicom.codecs import check_decoders
from imaging.errors import EnvironmentFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.medmnist_file import MedMnistFile
from imaging.sources.open_source import open_source
from imaging.sources.protocol import Source
from models.networks.catalog import check_network
from models.objectives.objective_catalog import OBJECTIVES
from services.datasets import newest_dataset
from services.flow_requests import IngestRequest, NightlyRequest, ReevaluateRequest
from services.label_tables import finding_query, label_paths
from services.mask_input import check_masks, patient_table
from services.mlflow.registry_peek import peek_champions
from services.server_checks import check_servers
from services.settings import Settings
from services.start_weights import check_weights

REMEDY = "give --source a folder or archive with images, s3://BUCKET/PREFIX, dicomweb+https://HOST/PATH or an NPZ file"


def check_input(request: IngestRequest) -> Source:
    """Return the source, after a look at it and at its label table; nothing is written."""
    if not request.source:
        raise UserFault(f"no source was given: {REMEDY}")
    slides = request.preprocess is not None and request.preprocess.slide_mpp is not None
    if slides and request.masks:
        raise UserFault(
            "masks are of whole images, and with slide_mpp slides become tiles: give --labels and no --masks, or leave "
            "preprocess.slide_mpp out"
        )
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
    source = open_source(request.source, table, slides=slides)
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


def check_ingest(request: IngestRequest, settings: Settings) -> PreprocessSpec:
    """Return how the images of the source would be prepared."""
    source = check_input(request)
    check_modality(request, source)
    spec = request.preprocess or source.default_spec()
    key, version = settings.known_pseudonyms(), newest_version(settings.dataset_store, request.dataset)
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


def check_nightly(request: NightlyRequest, settings: Settings) -> None:
    """Refuse a night that cannot succeed."""
    spec = check_ingest(request, settings)
    config = request.training
    check_network(config.network, OBJECTIVES[config.objective].network_output, spec)
    check_weights(config, settings)


def check_reevaluate(request: ReevaluateRequest, settings: Settings) -> None:
    """Refuse a re-evaluation that cannot succeed."""
    if request.source:
        check_ingest(request, settings)
    else:
        newest_dataset(settings, request.dataset)
    check_servers(settings)
    if not any(model.version for model in peek_champions(settings) if model.name == request.dataset):
        raise UserFault(
            f"model {request.dataset!r} has no champion yet: `radloop run` trains one and lets it prove itself"
        )
