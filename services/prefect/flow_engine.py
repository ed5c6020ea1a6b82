"""Run of a flow in two steps: its flow run is created on Prefect's server, and then Prefect's engine runs it.

The engine asks `flow_run_name` for the name of each.
"""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import coolname
from coolname.loader import load_config
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.context import FlowRunContext
from prefect.flow_engine import run_flow
from prefect.states import Pending

from services.prefect.run_names import STAR, TWO_NOUNS, date_of, standard_name

NIGHT = ContextVar("NIGHT", default="")
"""Date of the run that is no child of another: that of its children too, also after midnight."""


def create_run(flow: Flow[Any, Any], parameters: Mapping[str, Any]) -> FlowRun:
    """Return a new flow run, which waits."""
    name = _standard_name(flow.name, parameters, date_of(datetime.now(UTC), key=None))
    with get_client(sync_client=True) as client:
        return client.create_flow_run(
            flow, name=name, parameters=flow.serialize_parameters(dict(parameters)), state=Pending()
        )


def run(flow: Flow[Any, Any], flow_run: FlowRun, parameters: Mapping[str, Any]) -> Any:
    """Run the flow as this flow run, and return its outcome."""
    return run_flow(flow=flow, flow_run=flow_run, parameters=dict(parameters))


def flow_run_name() -> str:
    """Return the name of the run that begins: flow, dataset and date, or what a person has typed."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        raise RuntimeError("no flow run begins here")
    run = context.flow_run
    if not (run.parent_task_run_id and NIGHT.get()):
        NIGHT.set(date_of(run.expected_start_time or datetime.now(UTC), run.idempotency_key))
    # Nobody types the name of a child.
    if not run.parent_task_run_id and not is_made_up(run.name):
        return run.name
    return _standard_name(context.flow.name, context.parameters or {}, NIGHT.get())


def _standard_name(flow: str, parameters: Mapping[str, Any], date: str) -> str:
    return standard_name(flow, getattr(parameters.get("request"), "dataset", ""), date)


def is_made_up(name: str) -> bool:
    """Return whether Prefect has made a name up: its server of two dictionary entries, its page of a star's name.

    >>> is_made_up("astute-woodpecker"), is_made_up("gamma4-lyrae"), is_made_up("chest-pilot"), is_made_up("beta")
    (True, True, False, False)
    """
    if TWO_NOUNS.fullmatch(name) and _dictionary().issuperset(name.split("-")):
        return True
    return STAR.fullmatch(name) is not None


@cache
def _dictionary() -> frozenset[str]:
    lists: Iterable[Mapping[str, Any]] = load_config(str(Path(coolname.__file__).parent / "data")).values()
    return frozenset(entry for one in lists for entry in one.get("words", ()))
