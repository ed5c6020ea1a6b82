"""Run of a flow in two steps: its flow run is created on Prefect's server, and then Prefect's engine runs it."""

from collections.abc import Mapping
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.flow_engine import run_flow
from prefect.states import Pending


def create_run(flow: Flow[Any, Any], parameters: Mapping[str, Any]) -> FlowRun:
    """Return a new flow run, which waits."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run(
            flow, parameters=flow.serialize_parameters(dict(parameters)), state=Pending()
        )


def run(flow: Flow[Any, Any], flow_run: FlowRun, parameters: Mapping[str, Any]) -> Any:
    """Run the flow as this flow run, and return its outcome."""
    return run_flow(flow=flow, flow_run=flow_run, parameters=dict(parameters))
