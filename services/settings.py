"""Settings: the only reader of environment variables, and the embedded defaults for the servers' clients."""

import base64
import os
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms, load_pseudonyms
from imaging.store.cache import LIMIT_BYTES
from imaging.store.folder_store import FolderStore
from imaging.store.open_store import open_store
from imaging.store.protocol import Store
from services.stack_file import running_stack

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that are reached without a proxy: one for the outside must not stand before the servers of this machine."""
NO_PROXY, ALL_HOSTS = ("no_proxy", "NO_PROXY"), "*"
"""Names of the variable: which of them counts where both are set differs from client to client."""

AUTH = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
"""Names of USER:PASSWORD of Prefect's server, for its clients and for the server itself."""
HOME_SERVER = {
    # The home needs no types of blocks and no automations, and its runs are not scheduled: half of the start.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}
"""Environment of the Prefect server of a home, over that of the command which starts it."""
SECRETS = ("RADLOOP_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""What that server does not need, and should not keep longer than the command."""


class Settings(BaseSettings):
    """Where things are; every field is an environment variable, all of them optional."""

    model_config = SettingsConfigDict(env_prefix="RADLOOP_", frozen=True, extra="ignore")

    home: Path = Field(Path(".radloop"), description="Folder of everything that the embedded default keeps.")
    store: str | None = Field(
        None,
        description="Store of shards and manifests: a folder, or s3://BUCKET/PREFIX; default HOME/store.",
    )
    cache_gb: float = Field(
        LIMIT_BYTES / 1e9,
        gt=0,
        description="Of a store on S3, keep at most so many GB (10^9 bytes) in HOME/cache; what was used least "
        "recently goes first, never what is in use.",
    )
    key: SecretStr | None = Field(
        None,
        description="Key of the pseudonyms, 64 hex digits; default: HOME/private/pseudonym.key, made once. "
        "Keep a copy: another key makes every known patient a new one, so it needs new datasets.",
    )
    artifacts: str | None = Field(None, description="Artifact location of new MLflow experiments.")
    ray_address: str | None = Field(None, description="Jobs API of a Ray cluster, http://host:8265.")
    ray_wait_min: float = Field(
        60,
        gt=0,
        description="Minutes that a job waits for CPUs or GPUs of the Ray cluster which others hold.",
    )
    mlflow_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI"),
        description="MLflow server, http://HOST:PORT, or a database such as sqlite:///FILE; default: HOME/mlflow.db.",
    )
    prefect_api_url: str | None = Field(
        None,
        validation_alias=AliasChoices("PREFECT_API_URL"),
        description="Prefect server, http://HOST:PORT/api; default: one of the home.",
    )
    home_server: str | None = Field(
        None, description="Set by a command for itself: what PREFECT_API_URL names is the server of the home."
    )
    prefect_idle_min: float = Field(
        15, gt=0, description="Minutes without a request after which the Prefect server of the home ends."
    )
    prefect_auth: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(*AUTH),
        description="Login of Prefect's server, USER:PASSWORD.",
    )
    prefect_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("PREFECT_API_KEY"), description="Key of Prefect Cloud."
    )
    prefect_database: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("PREFECT_API_DATABASE_CONNECTION_URL"),
        description="Database of the Prefect server that a command or `up` starts; default: HOME/prefect.db.",
    )

    @cached_property
    def folder(self) -> Path:
        """The home as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def store_root(self) -> Path:
        """The folder of reports, the ledger and runs; the store is there too where it is a folder."""
        if self.store is None or "://" in self.store:
            return self.folder / "store"
        return Path(self.store).expanduser().resolve()

    @property
    def folder_store(self) -> FolderStore:
        """What is kept on this machine."""
        return FolderStore(self.store_root)

    @property
    def dataset_place(self) -> str:
        """Where shards and manifests are: a folder, or s3://BUCKET/PREFIX."""
        return self.store if self.store and "://" in self.store else str(self.store_root)

    @property
    def cache(self) -> Path:
        """The folder of what was fetched from a store that is no folder."""
        return self.folder / "cache"

    @property
    def cache_bytes(self) -> int:
        """How much of it is kept."""
        return int(self.cache_gb * 1e9)

    @property
    def dataset_access(self) -> dict[str, Any]:
        """What another process opens the store by: `store`, `cache` and `cache_bytes`, as JSON knows them."""
        return {"store": self.dataset_place, "cache": str(self.cache), "cache_bytes": self.cache_bytes}

    @property
    def dataset_store(self) -> Store:
        """The store of shards and manifests."""
        return open_store(self.dataset_place, self.cache, self.cache_bytes)

    @property
    def private(self) -> Path:
        """The folder that never leaves ingest: the key, and lists with original names."""
        return self.folder / "private"

    def pseudonyms(self) -> Pseudonyms:
        """Return the pseudonyms under the key of this home, which is made where there is none."""
        # An empty secret is a wrong one, and no reason to make a key.
        secret = None if self.key is None else self.key.get_secret_value()
        return load_pseudonyms(self.private / "pseudonym.key", secret)

    def known_pseudonyms(self) -> Pseudonyms | None:
        """Return the pseudonyms where there is a key; none is made.

        Raises EnvironmentFault for a key of another form.
        """
        there = self.key is not None or (self.private / "pseudonym.key").exists()
        return self.pseudonyms() if there else None

    def pseudonyms_of_run(self, key_fingerprint: str) -> Pseudonyms:
        """Return the pseudonyms for a worker of a run: it reads the key itself, since Ray may log what it hands on.

        Raises EnvironmentFault where its key is not that of the run.
        """
        pseudonyms = self.pseudonyms()
        if pseudonyms.fingerprint != key_fingerprint:
            raise EnvironmentFault(
                f"a worker has the key {pseudonyms.fingerprint} and the run has {key_fingerprint}: "
                "give all nodes the same home or the same RADLOOP_KEY"
            )
        return pseudonyms

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and models."""
        return self.mlflow_uri or f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def other_prefect(self) -> str | None:
        """The Prefect server that the environment names; None where the home has its own."""
        return None if self.prefect_api_url == self.home_server else self.prefect_api_url

    @property
    def has_registry(self) -> bool:
        """Whether there is a registry to look into: MLflow's own database is made by its first run."""
        database = self.tracking_uri.removeprefix("sqlite:///")
        return database == self.tracking_uri or self.folder.joinpath(database).exists()

    @property
    def artifact_location(self) -> str | None:
        """Where a new experiment keeps its files; None leaves it to the MLflow server."""
        if self.artifacts:
            return self.artifacts
        return None if self.mlflow_uri else (self.folder / "mlartifacts").as_uri()

    def defaults(self) -> Mapping[str, str]:
        """Return the environment that the embedded default needs, for what is not set already."""
        # Named before MLFLOW_TRACKING_URI is set below, which would look like a server of the user's.
        artifacts = {"RADLOOP_ARTIFACTS": self.artifact_location} if self.artifact_location else {}
        return artifacts | {
            "RADLOOP_HOME": str(self.folder),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}",
            # A fresh database takes longer than Prefect's default waits for.
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_WRAP_LINES": "false",
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            # Half a minute of patience with a server that restarts; MLflow's default is many minutes.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
            "DO_NOT_TRACK": "true",
            # It gives back what it frees; Arrow's own choice keeps as much again as the rows of a dataset take.
            "ARROW_DEFAULT_MEMORY_POOL": "jemalloc",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray Tune's tables are for notebooks: a search logs lines of its own.
            "RAY_AIR_NEW_OUTPUT": "0",
            "RADLOOP_RAY_WAIT_MIN": f"{self.ray_wait_min:g}",
            # The controller polls its workers; at the default of 2 s a report costs 2 s.
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "RAY_TRAIN_V2_ENABLED": "1",
            # A process more for nodes that a cloud may take away; without a cluster it only costs seconds.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1" if self.ray_address else "0",
        }


def set_environment(home: Path | None = None) -> Settings:
    """Make the running stack, or else the embedded default, the environment of this process; nothing is written.

    Call it before prefect, ray or mlflow load.
    """
    if home is not None:
        os.environ["RADLOOP_HOME"] = str(home)
    for group in running_stack(Settings().folder):
        if next(iter(group)) not in os.environ:
            os.environ.update(group)
    settings = Settings()
    for name, value in settings.defaults().items():
        os.environ.setdefault(name, value)
    if settings.prefect_auth:
        # A server asks for it, and a client gives it, by names of their own.
        for name in AUTH:
            os.environ.setdefault(name, settings.prefect_auth.get_secret_value())
    os.environ.update(direct_hosts(os.environ))
    return settings


def direct_hosts(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the hosts that are reached without a proxy, in both spellings: those of either, and the loopback's.

    >>> direct_hosts({"no_proxy": ".hospital.example"})["NO_PROXY"]
    '.hospital.example,127.0.0.1,localhost,::1'
    """
    given = ",".join(environment.get(name, "") for name in NO_PROXY).split(",")
    # httpx, which Prefect's clients use, takes no brackets here: it fails for every host.
    hosts = [re.sub(r"^\[(.*)\]$", r"\1", host.strip()) for host in given if host.strip()]
    # All hosts: beside another name it would be one that no host has.
    value = ALL_HOSTS if ALL_HOSTS in hosts else ",".join(dict.fromkeys((*hosts, *LOOPBACK)))
    return dict.fromkeys(NO_PROXY, value)


def authorization(settings: Settings) -> Mapping[str, str]:
    """Return the header that Prefect's server asks for where an auth string is set."""
    if settings.prefect_auth is None:
        return {}
    secret = settings.prefect_auth.get_secret_value().encode()
    return {"Authorization": f"Basic {base64.b64encode(secret).decode()}"}


def use_home_server(url: str) -> None:
    """Make the Prefect server of the home that of this process, and of those that it starts."""
    os.environ.update(PREFECT_API_URL=url, RADLOOP_HOME_SERVER=url)


def environment_of_server() -> dict[str, str]:
    """Return the environment for the Prefect server of the home."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    # A checkout need not be installed.
    paths = [entry or str(Path.cwd()) for entry in sys.path]
    return HOME_SERVER | kept | {"PYTHONPATH": os.pathsep.join(paths)}


def check_proxies(environment: Mapping[str, str]) -> None:
    """Raise EnvironmentFault for a SOCKS proxy where no package speaks it: then no client at all can be made."""
    for name, value in environment.items():
        if name.lower().endswith("_proxy") and value.lower().startswith("socks") and not find_spec("socksio"):
            raise EnvironmentFault(
                f"{name} names a SOCKS proxy, and a package for it is missing: `pip install socksio PySocks`, or unset "
                f"{name} for radloop, or set it to an http:// proxy"
            )


def activate(home: Path | None = None) -> Settings:
    """Set the environment of this process, and make the home."""
    settings = set_environment(home)
    check_proxies(os.environ)
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot make the home {settings.folder} ({error.strerror}): give --home a folder that can be written"
        ) from error
    return settings
