"""Flow runs on Prefect's server: the next ones, the latest ones, and the end of those that run."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.stack.servers import prefect_answer

SCHEDULED = {"state": {"type": {"any_": ["SCHEDULED"]}}}
OPEN = ("RUNNING", "PENDING", "CANCELLING")
BEGUN = {"state": {"type": {"not_any_": ["SCHEDULED"]}}, "parent_task_run_id": {"is_null_": True}}


SLOT = "AwaitingConcurrencySlot"
WAITS_FOR = {
    SLOT: "the slot of a run that has ended or was killed, for at most 6 minutes",
    "Late": "the worker",
    "Pending": "its process to start",
    "Submitting": "its process to start",
    "InfrastructurePending": "its process to start",
    "AwaitingRetry": "its next try",
}
"""What a run waits for, by the name of its state; without an entry it does not, or only for its time."""

Run = Mapping[str, Any]
NameOf = Callable[[str, Run], str]
"""Name to show of a run, from the name of its flow and from what Prefect's API lists of it."""


@dataclass(frozen=True, kw_only=True)
class FlowRun:
    """A flow run; `when` it begins or began is in this machine's time zone, `waits_for` is empty where it does not."""

    name: str
    flow: str
    state: str
    when: datetime
    waits_for: str = ""


def _listed_name(flow: str, run: Run) -> str:
    return str(run["name"])


def next_runs(prefect: str, limit: int = 3, name_of: NameOf = _listed_name) -> list[FlowRun]:
    """Return the next scheduled runs; empty when nothing is scheduled or the server does not answer."""
    query = {"flow_runs": SCHEDULED, "sort": "NEXT_SCHEDULED_START_TIME_ASC", "limit": limit}
    return _runs(prefect, query, name_of)


def latest_runs(prefect: str, limit: int = 5, name_of: NameOf = _listed_name) -> list[FlowRun]:
    """Return the runs that began last, newest first, without the runs of their subflows."""
    query = {"flow_runs": BEGUN, "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
    return _runs(prefect, query, name_of)


def _runs(prefect: str, query: Mapping[str, Any], name_of: NameOf) -> list[FlowRun]:
    runs: Sequence[Run] = prefect_answer(f"{prefect}/api/flow_runs/filter", query) or []
    flows = prefect_answer(f"{prefect}/api/flows/filter", {"limit": 200}) or []
    flow_names = {flow["id"]: flow["name"] for flow in flows}

    def name(run: Run) -> str:
        return name_of(flow_names.get(run["flow_id"], "?"), run)

    slots = sorted({run["deployment_id"] for run in runs if run["state_name"] == SLOT})
    holders: Sequence[Run] = []
    if slots:
        taken = {"deployment_id": {"any_": slots}, "state": {"type": {"any_": OPEN}}}
        holders = prefect_answer(f"{prefect}/api/flow_runs/filter", {"flow_runs": taken}) or []
    return [
        FlowRun(
            name=name(run),
            flow=flow_names.get(run["flow_id"], "?"),
            state=run["state_name"],
            when=datetime.fromisoformat(run["start_time"] or run["expected_start_time"]).astimezone(),
            waits_for=waits_for(
                run, [name(one) for one in holders if one["deployment_id"] == run["deployment_id"]]
            ),
        )
        for run in runs
    ]


def waits_for(run: Run, holders: Sequence[str]) -> str:
    """Return what a run waits for; `holders` are the names of runs that have the slots of its deployment."""
    state = run["state_name"]
    if state == SLOT and holders:
        return f"the end of {', '.join(holders)}"
    if state == "Scheduled" and datetime.fromisoformat(run["expected_start_time"]) < datetime.now(UTC):
        return "the worker"
    return WAITS_FOR.get(state, "")


def cancel_running(prefect: str, limit_s: float) -> None:
    """Cancel the runs of the worker, so that each run's own hooks clean up; wait for that at most `limit_s`."""
    for run in _of_the_worker(prefect, "RUNNING", "PENDING"):
        _set_state(prefect, run, {"type": "CANCELLING", "message": "The stack is being ended."})
    until = time.monotonic() + limit_s
    while _of_the_worker(prefect, "CANCELLING") and time.monotonic() < until:
        time.sleep(0.5)


def declare_lost(prefect: str) -> int:
    """Mark the runs of a worker that has ended as crashed, and return their number.

    After a loss of power they are still listed as running, and the next night would wait for their end.
    """
    lost = _of_the_worker(prefect, *OPEN)
    for run in [*lost, *_children(prefect, lost)]:
        _set_state(prefect, run, {"type": "CRASHED", "message": "The stack ended while this was running."})
    return len(lost)


def _children(prefect: str, runs: Sequence[str]) -> list[str]:
    """Return the child runs that are open; no flow of ours has grandchildren."""
    query = {"state": {"type": {"any_": OPEN}}, "parent_flow_run_id": {"any_": runs}}
    answer = prefect_answer(f"{prefect}/api/flow_runs/filter", {"flow_runs": query}) if runs else None
    return [run["id"] for run in answer or []]


def _of_the_worker(prefect: str, *states: str) -> list[str]:
    # Only runs of a deployment: another command of this home may run a flow by itself.
    query = {"state": {"type": {"any_": states}}, "deployment_id": {"is_null_": False}}
    return [
        run["id"] for run in prefect_answer(f"{prefect}/api/flow_runs/filter", {"flow_runs": query}) or []
    ]


def _set_state(prefect: str, run: str, state: Mapping[str, str]) -> None:
    prefect_answer(f"{prefect}/api/flow_runs/{run}/set_state", {"state": state, "force": True})
