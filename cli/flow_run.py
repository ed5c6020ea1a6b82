"""Run of a flow in this process: its request from options and a file, its outcome, and the commands that come next."""

import gc
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cli.options import ask
from cli.stop import run_in_thread
from cli.terminal import console, quiet_logs
from services.flow_requests import REQUESTS
from services.settings import Settings, activate

WITHOUT_PANDAS = ("ingest", "deidentify")
"""Flows that do not need it: MLflow does."""


def checked_request(name: str, config: Path | None, given: Mapping[str, Any]) -> Any:
    """Return the request of a flow, after a look at its source where it has one; nothing is written."""
    # Loaded here: it takes the codecs and readers, which --help does not need.
    from services.preflight import check_input, check_modality, open_places

    request: Any = ask(REQUESTS[name], config, dict(given))
    if name == "deidentify":
        open_places(request)
    elif name in ("nightly", "ingest") or getattr(request, "source", None):
        check_modality(request, check_input(request))
    return request


def run_flow(name: str, request: BaseModel) -> Any:
    """Run a flow in this process, print its outcome, and return it."""
    # Loaded here: httpx, which --help does not need.
    from services.open_runs import CommandRun

    run = CommandRun(activate())
    return run_in_thread(lambda: _run_flow(name, request, run), run.cancel)


def _run_flow(name: str, request: BaseModel, run: Any) -> Any:
    from services.open_runs import repair
    from services.prefect.server import claim_server
    from services.preflight import check_servers

    started = time.monotonic()
    check_servers(activate())
    # It starts while the flow is loaded.
    claim = claim_server(console.print)
    console.print(f"[bold]radloop {name}[/bold]: loading", highlight=False)
    flow = load_flow(name)
    quiet_logs()
    if claim:
        claim.wait()
    repair(activate(), lambda line: console.print(line, highlight=False, soft_wrap=True))
    loaded = time.monotonic()
    try:
        outcome = run.run(flow, name, request)
    except Exception:
        if claim:
            claim.check()
        raise
    print_outcome(name, outcome, imports_s=loaded - started, flow_s=time.monotonic() - loaded)
    return outcome


def load_flow(name: str) -> Callable[[Any], Any]:
    """Return a flow by its name; loading one loads Prefect, which takes seconds."""
    # A quarter of them went to the collector, which walks again and again through what the imports make, and stays.
    gc.disable()
    if name in WITHOUT_PANDAS:
        keep_pandas_out()
    try:
        return getattr(import_module(f"flows.{name}"), name)
    finally:
        gc.freeze()
        gc.enable()


def keep_pandas_out() -> None:
    """Let pyarrow go without pandas, which it loads at the first list only to see whether that is a series of pandas.

    That takes a second, a quarter of an ingest with nothing new. What asks pyarrow for pandas itself still gets it.
    """
    import pyarrow as pa

    if "pandas" not in sys.modules:
        finder = PandasRefused()
        sys.meta_path.insert(0, finder)
        try:
            # It tries once.
            pa.array([0])
        finally:
            sys.meta_path.remove(finder)


class PandasRefused(MetaPathFinder):
    """Finder of modules as if pandas was not installed."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Refuse pandas, and leave all others to the next finder."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


def print_outcome(name: str, outcome: Any, imports_s: float, flow_s: float) -> None:
    """Print the outcome of a flow, and the seconds of loading and of the flow with what Prefect adds to it."""
    # Loaded here: it costs nothing after a flow.
    from rich.markdown import Markdown

    from tasks.report.outcomes import RENDERERS, nightly_markdown

    if name == "nightly":
        around_s = flow_s - sum(outcome.timings_s.values())
        outside_s = {"imports": imports_s, "Prefect's start and end": around_s}
        console.print(Markdown(nightly_markdown(outcome, outside_s)))
    else:
        console.print(Markdown(RENDERERS[name](outcome)))
        console.print(f"took {imports_s:.1f} s to load and {flow_s:.1f} s to run", highlight=False)


def next_commands(settings: Settings, name: str) -> str:
    """Return where everything can be opened after a night, and the commands that come next."""
    radloop = f"{sys.argv[0]} --home {settings.home}" if settings.home != Path(".radloop") else sys.argv[0]
    return (
        f"\n[bold]MLflow and Prefect[/bold]  {radloop} up   (prints their addresses; runs this every night at 02:00)"
        f"\n[bold]Load the champion[/bold]   mlflow.pyfunc.load_model('models:/{name}@champion')"
        f" with MLFLOW_TRACKING_URI={settings.tracking_uri}"
        f"\n[bold]Your own images[/bold]     {sys.argv[0]} run --source FOLDER --labels LABELS.csv --name NAME"
    )
