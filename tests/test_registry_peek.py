"""Champions read without MLflow: from its database, from its server, and by MLflow where neither can be read."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from services.mlflow import registry
from services.mlflow.registry_peek import Champion, peek_champions
from services.mlflow.runs import reachable
from services.settings import Settings

PAGES = {
    "": {
        "registered_models": [
            {
                "name": "ct",
                "aliases": [{"alias": "challenger", "version": "4"}, {"alias": "champion", "version": "3"}],
            }
        ],
        "next_page_token": "more",
    },
    "more": {"registered_models": [{"name": "mr"}]},
}
"""As MLflow's REST API writes them: numbers are texts, and what is empty is left out."""


@contextmanager
def serving(status: int = 200) -> Iterator[str]:
    """Serve the pages of a registry, or refuse; yield the address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = parse_qs(urlsplit(self.path).query).get("page_token", [""])[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(PAGES[token]).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Collect the times that MLflow itself is asked."""
    times: list[Settings] = []
    monkeypatch.setattr(registry, "champions", lambda settings: times.append(settings) or [])
    return times


@pytest.mark.slow
def test_the_database_is_read_as_mlflow_reads_it(tracked: Settings) -> None:
    with reachable(tracked) as client:
        for name in ("alias-a", "alias-b"):
            client.create_registered_model(name)
        client.create_model_version("alias-a", "somewhere")
        client.set_registered_model_alias("alias-a", "champion", "1")
        client.set_registered_model_alias("alias-a", "challenger", "1")
    read = peek_champions(tracked)
    assert read == registry.champions(tracked)
    assert {Champion(name="alias-a", version=1), Champion(name="alias-b", version=None)} <= set(read)


def test_a_server_is_read_page_by_page(environment: None, asked: list[Settings]) -> None:
    with serving() as address:
        read = peek_champions(Settings().model_copy(update={"mlflow_uri": address}))
    assert (read, asked) == ([Champion(name="ct", version=3), Champion(name="mr", version=None)], [])


def test_a_server_that_wants_credentials_is_asked_by_mlflow(environment: None, asked: list[Settings]) -> None:
    with serving(401) as address:
        peek_champions(Settings().model_copy(update={"mlflow_uri": address}))
    assert len(asked) == 1


def test_a_database_of_another_release_is_read_by_mlflow(settings: Settings, asked: list[Settings]) -> None:
    settings.folder.mkdir()
    with closing(sqlite3.connect(settings.folder / "mlflow.db")) as database:
        database.execute("CREATE TABLE models (name TEXT)")
    peek_champions(settings)
    assert len(asked) == 1


def test_where_nothing_was_registered_no_database_is_made(settings: Settings) -> None:
    assert peek_champions(settings) == []
    assert not settings.folder.exists()
