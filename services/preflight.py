"""Checks before any work: sources, label tables and keys are there, and the servers answer. Prefect is not loaded."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from imaging.annotations.label_table import label_columns
from imaging.deidentify.folder.deidentify_chunk import DicomOnly
from imaging.deidentify.folder.destination import Destination, check_apart
from imaging.deidentify.profile.profile import load_profile
from imaging.dicom.codecs import check_decoders
from imaging.errors import EnvironmentFault, UserFault
from imaging.pseudonyms import Pseudonyms
from imaging.sources.open_source import open_source
from imaging.sources.protocol import Source
from services.flow_requests import DeidentifyRequest, IngestRequest
from services.ray.jobs import connect
from services.settings import Settings, authorization

TIMEOUT_S = 5.0
REMEDY = "give --source a folder or archive with images, s3://BUCKET/PREFIX, dicomweb+https://HOST/PATH or an NPZ file"
GUARDED = (401, 403)
"""A server that asks who is there is alive; the credentials meet their test at the first real call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenServer:
    """A server that an environment variable names."""

    title: str
    variable: str
    address: str


def check_input(request: IngestRequest) -> Source:
    """Return the source, after a look at it and at the first line of its label table; nothing is written."""
    if not request.source:
        raise UserFault(f"no source was given: {REMEDY}")
    table = Path(request.labels).expanduser() if request.labels else None
    if table:
        label_columns(table, request.label_column)
    source = open_source(request.source, table)
    if source.kind != "medmnist":
        check_decoders()
    if next(source.scan(), None) is None:
        raise UserFault(f"{request.source} holds no files: {REMEDY}")
    if table is None and source.kind != "medmnist":
        raise UserFault(
            f"{request.source} carries no labels: give --labels LABELS.csv, for pictures and NIfTI "
            "with the columns file, PatientID and label"
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
    path = settings.private / "pseudonym.key"
    if destination.exists() and settings.key is None and not path.exists():
        raise EnvironmentFault(
            f"{destination.root} was made with a key and there is none at {path}: restore it from your backup, set "
            "RADLOOP_KEY, or give a new destination"
        )
    return settings.pseudonyms()


def check_servers(settings: Settings) -> None:
    """Raise where a server that the environment names cannot be used, within seconds and not after an ingest."""
    for server in _servers(settings):
        healthy = _check_answers(server)
        # A proxy that refuses both has credentials of its own.
        if healthy and server.address == settings.other_prefect:
            _check_login(settings, server.address.rstrip("/"))
    if settings.ray_address:
        connect(settings.ray_address)


def _servers(settings: Settings) -> Iterator[ChosenServer]:
    if settings.other_prefect:
        yield ChosenServer(title="Prefect server", variable="PREFECT_API_URL", address=settings.other_prefect)
    uri = settings.tracking_uri
    if "://" not in uri or uri.startswith("file:"):
        raise UserFault(
            f"MLFLOW_TRACKING_URI={uri} names neither a database nor a server, and the registry needs one: "
            "set it to sqlite:///FILE or http://HOST:PORT, or unset it"
        )
    if uri.startswith("http"):
        yield ChosenServer(title="MLflow server", variable="MLFLOW_TRACKING_URI", address=uri)


def _check_answers(server: ChosenServer) -> bool:
    """Return whether the server says to everybody that it is healthy, and not only to whom it knows."""
    try:
        status = httpx.get(f"{server.address.rstrip('/')}/health", timeout=TIMEOUT_S).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EnvironmentFault(
            f"no {server.title} answers at {server.address} within {TIMEOUT_S:.0f} s: start it, "
            f"or correct or unset {server.variable}"
        ) from error
    if status != httpx.codes.OK and status not in GUARDED:
        raise EnvironmentFault(
            f"what answers at {server.address} is no healthy {server.title} (status {status}, 200 is expected): "
            f"correct or unset {server.variable}"
        )
    return status == httpx.codes.OK


def _check_login(settings: Settings, address: str) -> None:
    """Raise where Prefect's server asks for a login that was not given: for its health it asks for none."""
    with suppress(httpx.HTTPError):
        status = httpx.get(
            f"{address}/version", headers=authorization(settings), timeout=TIMEOUT_S
        ).status_code
        if status == httpx.codes.UNAUTHORIZED and not settings.prefect_key:
            raise EnvironmentFault(
                f"the Prefect server at {address} asks for {'another' if settings.prefect_auth else 'a'} login: "
                "set PREFECT_API_AUTH_STRING=USER:PASSWORD to the one that it was started with"
            )
