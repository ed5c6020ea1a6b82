"""Names of flow runs: flow, dataset and date, and what a person has typed stays."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.utilities.names import generate_slug

from services.prefect import flow_engine
from services.prefect.flow_engine import NIGHT, create_run, flow_run_name, is_made_up
from services.prefect.run_names import date_of, planned_name
from tests.conftest import FLOWS

EVENING = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
"""In Berlin it is the next day already."""
SCHEDULED = "scheduled 5b2a 77c1 2026-12-01 00:30:00+01:00"
"""As Prefect 3.8.8 writes it, in server/models/deployments.py."""


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this machine be in UTC, and no run have begun before."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    before = NIGHT.set("")
    yield
    NIGHT.reset(before)
    monkeypatch.undo()
    time.tzset()


def name_in(
    monkeypatch: pytest.MonkeyPatch,
    name: str = "astute-woodpecker",
    *,
    flow: str = "nightly",
    parent: str | None = None,
    key: str | None = None,
    dataset: dict[str, str] = {"dataset": "chest"},  # noqa: B006
    expected: datetime = EVENING,
) -> str:
    """Return the name of a run that begins so."""
    run = SimpleNamespace(
        name=name, parent_task_run_id=parent, expected_start_time=expected, idempotency_key=key
    )
    context = SimpleNamespace(
        flow=SimpleNamespace(name=flow), flow_run=run, parameters={"request": SimpleNamespace(**dataset)}
    )
    monkeypatch.setattr(flow_engine.FlowRunContext, "get", lambda: context)
    return flow_run_name()


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_is_named_so(name: str) -> None:
    assert getattr(import_module(f"flows.{name}"), name).flow_run_name is flow_run_name


def test_what_prefects_server_makes_up_is_recognised() -> None:
    assert [name for name in (generate_slug(2) for _ in range(1000)) if not is_made_up(name)] == []


@pytest.mark.parametrize("name", ["alpha-andromedae", "zeta6-lyrae", "omega812-canum-venaticorum-nebula"])
def test_what_the_form_of_the_page_makes_up_is_recognised(name: str) -> None:
    assert is_made_up(name)


@pytest.mark.parametrize(
    "name",
    ["before upgrade", "chest-pilot", "chest", "beta", "Alpha-lyrae", "test-2", "alphabet-soup", "a-b-c"],
)
def test_a_name_that_a_person_typed_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_in(monkeypatch, name) == name


def test_a_run_is_named_by_flow_dataset_and_date(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_in(monkeypatch) == "nightly chest 2026-11-30"
    assert name_in(monkeypatch, flow="deidentify", dataset={}) == "deidentify 2026-11-30"


def test_the_date_is_that_of_the_time_zone_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_in(monkeypatch, key=SCHEDULED) == "nightly chest 2026-12-01"


@pytest.mark.parametrize("key", [None, "", "mine 2026-12-01", "scheduled 5b2a"])
def test_another_key_has_no_date(key: str | None) -> None:
    assert date_of(EVENING, key) == "2026-11-30"


def test_the_runs_inside_a_night_have_its_date(monkeypatch: pytest.MonkeyPatch) -> None:
    later = datetime(2026, 12, 1, 1, tzinfo=UTC)
    assert name_in(monkeypatch) == "nightly chest 2026-11-30"
    assert name_in(monkeypatch, flow="train", parent="p", expected=later) == "train chest 2026-11-30"
    assert name_in(monkeypatch, expected=later) == "nightly chest 2026-12-01"


def test_a_command_names_its_run_when_it_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[dict[str, Any]]()
    client = SimpleNamespace(create_flow_run=lambda flow, **given: made.append(given))
    monkeypatch.setattr(flow_engine, "get_client", lambda **_: nullcontext(client))
    flow = SimpleNamespace(name="ingest", serialize_parameters=dict)
    create_run(cast(Any, flow), {"request": SimpleNamespace(dataset="chest")})
    assert made[0]["name"] == f"ingest chest {datetime.now(UTC):%Y-%m-%d}"


def listed(**changes: Any) -> dict[str, Any]:
    """Return a scheduled run as Prefect's API lists it."""
    return {
        "name": "astute-woodpecker",
        "state_type": "SCHEDULED",
        "parameters": {"request": {"dataset": "chest"}},
        "expected_start_time": "2026-11-30T23:30:00Z",
        "idempotency_key": SCHEDULED,
    } | changes


def test_status_shows_the_name_that_a_run_will_get() -> None:
    assert planned_name("nightly", listed()) == "nightly chest 2026-12-01"
    assert planned_name("deidentify", listed(parameters={}, idempotency_key=None)) == "deidentify 2026-11-30"


@pytest.mark.parametrize("change", [{"name": "before upgrade"}, {"state_type": "RUNNING"}])
def test_status_shows_other_names_as_they_are(change: dict[str, str]) -> None:
    assert planned_name("nightly", listed(**change)) == change.get("name", "astute-woodpecker")
