"""Champions of all models, read from MLflow's database or server without loading MLflow, which takes seconds."""

import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlencode

from services.settings import Settings

SQLITE = "sqlite:///"
QUERY = """
    SELECT models.name, aliases.version FROM registered_models AS models
    LEFT JOIN registered_model_aliases AS aliases ON aliases.name = models.name AND aliases.alias = 'champion'
    ORDER BY models.name
"""
SEARCH = "api/2.0/mlflow/registered-models/search"
"""Of MLflow's REST API, which is stable; its database changes with releases, see `peek_champions`."""
PAGE = 100
TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model's champion; `version` is None where no version has proved itself yet."""

    name: str
    version: int | None


def peek_champions(settings: Settings) -> list[Champion]:
    """Return the champion of each registered model; no registry is made where there is none.

    Where it cannot be read so, because of credentials or another release of MLflow, MLflow itself is asked.
    """
    if not settings.has_registry:
        return []
    uri = settings.tracking_uri
    try:
        if uri.startswith(SQLITE):
            return _of_database(str(settings.folder / uri.removeprefix(SQLITE)))
        if uri.startswith("http"):
            return list(_of_server(uri.rstrip("/")))
    except (OSError, ValueError, KeyError, sqlite3.Error):
        pass
    # Loaded here: it is the way that takes seconds.
    from services.mlflow.registry import champions

    return champions(settings)


def _of_database(path: str) -> list[Champion]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return [Champion(name=name, version=version) for name, version in database.execute(QUERY)]


def _of_server(address: str) -> Iterator[Champion]:
    token = ""
    while True:
        query = urlencode({"max_results": PAGE} | ({"page_token": token} if token else {}))
        with urllib.request.urlopen(f"{address}/{SEARCH}?{query}", timeout=TIMEOUT_S) as answer:
            page = json.load(answer)
        for model in page.get("registered_models", []):
            aliases = {one["alias"]: int(one["version"]) for one in model.get("aliases", [])}
            yield Champion(name=model["name"], version=aliases.get("champion"))
        if not (token := page.get("next_page_token", "")):
            return
