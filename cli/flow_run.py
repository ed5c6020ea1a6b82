"""Run of a flow in this process: its request from options and a file, and its outcome."""

import gc
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.markdown import Markdown

from cli.options import as_request, ask
from cli.stop import run_in_thread
from cli.terminal import console, note, print_result, quiet_logs, result_alone
from models.torch_process import start_torch
from services.flow_requests import REQUESTS, TrainRequest
from services.open_runs import CommandRun, repair
from services.prefect.server import claim_server
from services.preflight import check_request
from services.server_checks import check_servers
from services.settings import Settings, activate
from services.training_plan import will_train


def run_command(flow: str, config: Path | None, as_json: bool, **options: Any) -> None:
    """Run the flow of a command."""
    run_flow(flow, checked_request(flow, config, as_request(options)), as_json)


def checked_request(name: str, config: Path | None, given: Mapping[str, Any]) -> Any:
    """Return the request of a flow, after a look at all that it names; nothing is written."""
    request: Any = ask(REQUESTS[name], config, dict(given))
    check_request(name, request, Settings())
    return request


def run_flow(name: str, request: BaseModel, as_json: bool = False) -> Any:
    """Run a flow in this process, print its outcome, and return it."""
    run = CommandRun(activate())
    return run_in_thread(lambda: _run_flow(name, request, run, as_json), run.cancel)


def _run_flow(name: str, request: BaseModel, run: CommandRun, as_json: bool) -> Any:
    started = time.monotonic()
    check_servers(activate())
    # It starts while the flow is loaded, and so does what trains.
    claim = claim_server(note)
    if isinstance(request, TrainRequest) and will_train(request, activate()):
        start_torch()
    note(f"[bold]radloop {name}[/bold]: loading")
    with result_alone(as_json):
        flow = load_flow(name)
        quiet_logs()
        if claim:
            claim.wait()
        repair(activate(), note)
        loaded = time.monotonic()
        try:
            outcome = run.run(flow, name, request)
        except Exception:
            if claim:
                claim.check()
            raise
    print_outcome(name, outcome, loaded - started, time.monotonic() - loaded, as_json)
    return outcome


def load_flow(name: str) -> Callable[[Any], Any]:
    """Return a flow by its name; loading one loads Prefect, which takes seconds."""
    # A quarter of them went to the collector, which walks again and again through what the imports make, and stays.
    gc.disable()
    try:
        return getattr(import_module(f"flows.{name}"), name)
    finally:
        gc.freeze()
        gc.enable()


def print_outcome(name: str, outcome: Any, imports_s: float, flow_s: float, as_json: bool = False) -> None:
    """Print the outcome of a flow, and the seconds of loading and of the flow with what Prefect adds to it."""
    # Loaded here: it costs nothing after a flow.
    from tasks.report.outcome_values import plain
    from tasks.report.outcomes import RENDERERS, nightly_markdown

    if name == "nightly":
        around_s = flow_s - sum(outcome.timings_s.values())
        markdown = nightly_markdown(outcome, {"imports": imports_s, "Prefect's start and end": around_s})
    else:
        markdown = RENDERERS[name](outcome)
    if as_json:
        print_result(plain(outcome), "", as_json)
    else:
        console.print(Markdown(markdown))
    if name != "nightly":
        note(f"took {imports_s:.1f} s to load and {flow_s:.1f} s to run")
