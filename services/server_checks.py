"""Checks of the servers that the environment names: they answer, and take our login. Prefect is not loaded."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import httpx

from imaging.errors import EnvironmentFault, UserFault
from services.ray.jobs import connect
from services.settings import Settings, authorization

TIMEOUT_S = 5.0
GUARDED = (401, 403)
"""A server that asks who is there is alive; the credentials meet their test at the first real call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenServer:
    """A server that an environment variable names."""

    title: str
    variable: str
    address: str


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
