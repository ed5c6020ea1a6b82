"""Owns what Prefect's server says about runs: the next ones on the schedules, and the latest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.servers import ask

SCHEDULED = {"state": {"type": {"any_": ["SCHEDULED"]}}}
BEGUN = {"state": {"type": {"not_any_": ["SCHEDULED"]}}, "parent_flow_run_id": {"is_null_": True}}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A flow run: when it begins or began, in this machine's time zone."""

    name: str
    flow: str
    state: str
    when: datetime


def next_runs(prefect: str, limit: int = 3) -> list[Run]:
    """Return the runs that come next; empty when nothing is scheduled or the server does not answer."""
    return _runs(prefect, {"flow_runs": SCHEDULED, "sort": "NEXT_SCHEDULED_START_TIME_ASC", "limit": limit})


def latest_runs(prefect: str, limit: int = 5) -> list[Run]:
    """Return the runs that began last, newest first, without the runs inside of them."""
    return _runs(prefect, {"flow_runs": BEGUN, "sort": "EXPECTED_START_TIME_DESC", "limit": limit})


def _runs(prefect: str, query: Mapping[str, Any]) -> list[Run]:
    found: Sequence[Mapping[str, Any]] = ask(f"{prefect}/api/flow_runs/filter", query) or []
    flows = ask(f"{prefect}/api/flows/filter", {"limit": 200}) or []
    names = {flow["id"]: flow["name"] for flow in flows}
    return [
        Run(
            name=run["name"],
            flow=names.get(run["flow_id"], "?"),
            state=run["state_name"],
            when=datetime.fromisoformat(run["start_time"] or run["expected_start_time"]).astimezone(),
        )
        for run in found
    ]
