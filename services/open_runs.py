"""End of flow runs whose process has gone or is stopped: on Prefect, in MLflow and on a Ray cluster.

A command records its flow run; what a process left open that was killed is ended by the next command of the home,
by `radloop status`, or by the home's Prefect server.
"""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx

from imaging.errors import RadloopError
from services.prefect.run_record import (
    Outcome,
    RunRecord,
    abandoned_runs,
    check_home,
    record_of,
    remove_record,
    write_record,
)
from services.prefect.run_states import end_open_runs
from services.ray.jobs import stop_job_of
from services.settings import Settings, activate, authorization

TRAINING = ("train", "tune", "nightly")
"""Flows with a run in MLflow."""
FLOW_RUN_TAG = "prefect.flow_run"
MESSAGES = {
    "CRASHED": "The process of this run ended without a word.",
    "CANCELLED": "A person or the system stopped the command.",
}
CREATION_S = 1.5
"""To wait for the id of a flow run that is just being created."""
POLL_S = 0.02

Log = Callable[[str], None]


class CommandRun:
    """Flow run of this command, which one thread runs and another may cancel."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._record: RunRecord | None = None
        self._begun = threading.Event()

    def run(self, flow: Any, name: str, request: Any) -> Any:
        """Run a flow, and record it as long as it has no end; without Prefect's decorator it is just called."""
        if not hasattr(flow, "serialize_parameters"):
            return flow(request)
        # Loaded here: who stops or repairs a run need not wait for Prefect.
        from services.prefect.flow_engine import create_run, run

        home, parameters = self._settings.folder, {"request": request}
        check_home(home)
        self._begun.set()
        # Created here: while Prefect's engine creates it, nobody else knows its id.
        flow_run = create_run(flow, parameters)
        self._record = record_of(str(flow_run.id), name)
        write_record(home, self._record)
        outcome = run(flow, flow_run, parameters)
        # After an exception it stays: the server may not know the end of the run.
        remove_record(home, self._record)
        return outcome

    def cancel(self) -> None:
        """Cancel the run and its child runs; what cannot be done now is left to the next command."""
        until = time.monotonic() + CREATION_S
        while self._begun.is_set() and self._record is None and time.monotonic() < until:
            time.sleep(POLL_S)
        if self._record is None:
            return
        record = replace(self._record, outcome="CANCELLED")
        with suppress(RadloopError):
            write_record(self._settings.folder, record)
        end_run(record, self._settings)
        # A task that begins in these moments is known to the server only later: who comes next looks again.
        with suppress(RadloopError):
            write_record(self._settings.folder, replace(record, ended=True))


def end_run(record: RunRecord, settings: Settings) -> list[str]:
    """End what is open of a flow run; return the names of the flow runs, and remove its record if all is done.

    Raises httpx.HTTPError or RadloopError where a server does not answer.
    """
    # Read anew: the server of the home may have become the one of this process meanwhile.
    api = Settings().prefect_api_url or ""
    with ThreadPoolExecutor() as pool:
        stopped = record.outcome == "CANCELLED" and not record.ended
        others = [pool.submit(_end_training, record, settings)] if stopped else []
        names = end_open_runs(
            api, _headers(settings), record.flow_run, record.outcome, MESSAGES[record.outcome]
        )
        if names and not stopped:
            _end_training(record, settings)
        for other in others:
            other.result()
    # A run that this server does not know is another one's.
    if names is not None or record.ended:
        remove_record(settings.folder, record)
    return names or []


def end_child_runs(flow: Any, flow_run: Any, state: Any) -> None:
    """Give the child runs of a flow run that was cancelled, or whose process died, an end too (a hook of the flow)."""
    settings = activate()
    outcome: Outcome = "CRASHED" if state.is_crashed() else "CANCELLED"
    api = settings.prefect_api_url or ""
    end_open_runs(
        api, _headers(settings), str(flow_run.id), outcome, f"The state of its parent run is {state.name}."
    )


def repair(settings: Settings, log: Log) -> None:
    """End what processes left open that were killed, and say so in one line each."""
    for record in abandoned_runs(settings.folder):
        # Servers that do not answer now may do so for a later command.
        with suppress(httpx.HTTPError, RadloopError):
            if names := end_run(record, settings):
                log(
                    f"{record.flow} of process {record.pid} ended before its time; what was done is kept, and on "
                    f"Prefect {', '.join(names)} counts as {record.outcome.lower()}"
                )


def _end_training(record: RunRecord, settings: Settings) -> None:
    if settings.ray_address:
        with suppress(RadloopError):
            stop_job_of(record.flow_run, settings)
    if record.flow in TRAINING and settings.has_registry:
        # Loaded here: ingest has no run in MLflow.
        from services.mlflow.runs import end_runs_tagged

        end_runs_tagged(settings, FLOW_RUN_TAG, record.flow_run)


def _headers(settings: Settings) -> dict[str, str]:
    if settings.prefect_key:
        return {"Authorization": f"Bearer {settings.prefect_key.get_secret_value()}"}
    return dict(authorization(settings))


if __name__ == "__main__":
    # The home's Prefect server starts this where a command was killed.
    repair(activate(), lambda line: print(line, file=sys.stderr))
