"""States of flow runs on Prefect's server, set from outside the process that runs them; Prefect is not loaded."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from services.prefect.run_record import Outcome

FINAL: Mapping[Outcome, Sequence[str]] = {
    "CRASHED": ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"),
    # What fails while a command is being stopped fails because of that.
    "CANCELLED": ("COMPLETED", "CANCELLED"),
}
OPEN_TASKS = {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}}
TIMEOUT_S = 4.0


def end_open_runs(
    api: str, headers: Mapping[str, str], flow_run: str, outcome: Outcome, message: str
) -> list[str] | None:
    """Give a flow run, its child runs and their tasks, where they are open, a final state.

    Returns the names of the flow runs that were open, None where the server does not know the run. Raises
    httpx.HTTPError where it does not answer.
    """
    with httpx.Client(base_url=api.rstrip("/"), headers=headers, timeout=TIMEOUT_S) as client:
        answer = client.get(f"/flow_runs/{flow_run}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        family = [answer.json()]
        generation = [flow_run]
        while children := _asked(client, "flow_runs", {"parent_flow_run_id": {"any_": generation}}):
            family += children
            generation = [child["id"] for child in children]
        state = {"type": outcome, "name": outcome.capitalize(), "message": message}
        open_runs = [run for run in family if run["state_type"] not in FINAL[outcome]]
        for run in open_runs:
            _set_state(client, "flow_runs", run["id"], state)
        ids = [run["id"] for run in family]
        for task in _asked(client, "task_runs", OPEN_TASKS, flow_runs={"id": {"any_": ids}}):
            _set_state(client, "task_runs", task["id"], state)
    return [run["name"] for run in open_runs]


def _asked(client: httpx.Client, kind: str, query: Mapping[str, Any], **others: Any) -> Sequence[Any]:
    answer = client.post(f"/{kind}/filter", json={kind: query, **others})
    answer.raise_for_status()
    rows: Sequence[Any] = answer.json()
    return rows


def _set_state(client: httpx.Client, kind: str, run: str, state: Mapping[str, str]) -> None:
    answer = client.post(f"/{kind}/{run}/set_state", json={"state": state, "force": True})
    answer.raise_for_status()
