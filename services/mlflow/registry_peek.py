"""Peek at the registry: champions and versions without loading MLflow, which takes seconds.

Where they cannot be read so, because of credentials or another release of MLflow, MLflow itself is asked.
"""

import json
import sqlite3
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from services.settings import Settings

SQLITE = "sqlite:///"
UNREADABLE = (OSError, ValueError, KeyError, sqlite3.Error)
CHAMPIONS = """
    SELECT models.name, aliases.version FROM registered_models AS models
    LEFT JOIN registered_model_aliases AS aliases ON aliases.name = models.name AND aliases.alias = 'champion'
    ORDER BY models.name
"""
VERSIONS = "SELECT version FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal'"
TAGGED = "SELECT version FROM model_version_tags WHERE name = ? AND key = ? AND value = ?"
"""Rows of MLflow's database. What has changed in another release is read by MLflow itself."""
REST = "api/2.0/mlflow"
PAGE = 100
TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model's champion; `version` is None where no version has proved itself yet."""

    name: str
    version: int | None


def peek_champions(settings: Settings) -> list[Champion]:
    """Return the champion of each registered model; no registry is made where there is none."""
    if not settings.has_registry:
        return []
    try:
        if (path := _database(settings)) is not None:
            return [Champion(name=name, version=version) for name, version in _rows(path, CHAMPIONS)]
        return [
            Champion(name=model["name"], version=_aliases(model).get("champion"))
            for model in _pages(settings, "registered-models/search", "registered_models")
        ]
    except UNREADABLE:
        # Loaded here: it is the way that takes seconds.
        from services.mlflow.registry import champions

        return champions(settings)


def peek_versions(settings: Settings, name: str, **tags: str) -> list[int]:
    """Return the numbers of the versions of a model that carry these tags."""
    if not settings.has_registry:
        return []
    try:
        if (path := _database(settings)) is not None:
            asked = [(VERSIONS, (name,)), *((TAGGED, (name, *tag)) for tag in tags.items())]
            return sorted(set.intersection(*({row[0] for row in _rows(path, *query)} for query in asked)))
        query = f"name='{name}'" + "".join(f" and tags.`{key}`='{value}'" for key, value in tags.items())
        pages = _pages(settings, "model-versions/search", "model_versions", filter=query)
        return sorted(int(version["version"]) for version in pages)
    except UNREADABLE:
        from services.mlflow.registry import versions_of

        return versions_of(settings, name, **tags)


def _database(settings: Settings) -> Path | None:
    """Return the file of the registry where it is SQLite; raise ValueError for a database on a server."""
    uri = settings.tracking_uri
    if uri.startswith(SQLITE):
        return settings.folder / uri.removeprefix(SQLITE)
    if uri.startswith("http"):
        return None
    raise ValueError(uri)


def _rows(path: Path, query: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()


def _pages(settings: Settings, path: str, key: str, **query: str) -> Iterator[Mapping[str, Any]]:
    address, token = f"{settings.tracking_uri.rstrip('/')}/{REST}/{path}", ""
    while True:
        asked = urlencode({"max_results": PAGE, **query} | ({"page_token": token} if token else {}))
        with urllib.request.urlopen(f"{address}?{asked}", timeout=TIMEOUT_S) as answer:
            page = json.load(answer)
        yield from page.get(key, [])
        if not (token := page.get("next_page_token", "")):
            return


def _aliases(model: Mapping[str, Any]) -> dict[str, int]:
    return {one["alias"]: int(one["version"]) for one in model.get("aliases", [])}
