"""Jobs on a Ray cluster: submitted under the id of a flow run, followed until they end, and stopped with it."""

import asyncio
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imaging.errors import EnvironmentFault, RadloopError, UserFault
from services.settings import Settings

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

PREFIX = "prefect-"
"""Of the ids of jobs that flow runs ask for."""
JOB_FILE, LEASE_FILE, OUTCOME_FILE, FAULT_FILE = "job.json", "lease", "outcome.json", "fault.json"
LEASE_BEAT_S = 2.0
LEASE_LIMIT_S = 20.0
START_LINE_S = 4.0


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """A command to run on a cluster, under an id that is the same whenever the same flow run asks."""

    address: str
    submission_id: str
    entrypoint: str
    environment: Mapping[str, str]
    lease: Path
    start_limit_s: float = 3600.0


def run_step(
    step: Literal["train", "tune", "ingest", "deidentify"],
    job: str,
    folder: Path,
    flow_run_id: str,
    settings: Settings,
    log: Callable[[str], None],
) -> Path:
    """Do a step of a flow run on the cluster at RADLOOP_RAY_ADDRESS; return the file with its outcome.

    `job` is JSON, and the folder is one that all nodes see: `tasks.cluster_jobs` is at the other end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOB_FILE).write_text(job)
    (folder / FAULT_FILE).unlink(missing_ok=True)
    order = JobOrder(
        address=str(settings.ray_address),
        submission_id=f"{PREFIX}{flow_run_id}",
        entrypoint=f"{sys.executable} -m tasks.cluster_jobs {step} {folder}",
        environment=settings.defaults(),
        lease=folder / LEASE_FILE,
        start_limit_s=settings.ray_wait_min * 60,
    )
    try:
        run_job(order, log)
    except EnvironmentFault as ended:
        raise _fault_of(folder) or ended from None
    return folder / OUTCOME_FILE


def write_fault(folder: Path, fault: RadloopError) -> None:
    """Write why a job cannot do its step, for the flow run that waits for it."""
    name = UserFault.__name__ if isinstance(fault, UserFault) else EnvironmentFault.__name__
    partial_file = folder / f"{FAULT_FILE}.partial"
    partial_file.write_text(json.dumps({"fault": name, "message": str(fault)}))
    partial_file.rename(folder / FAULT_FILE)


def _fault_of(folder: Path) -> RadloopError | None:
    with suppress(OSError):
        written = json.loads((folder / FAULT_FILE).read_text())
        kind = UserFault if written["fault"] == UserFault.__name__ else EnvironmentFault
        return kind(written["message"])
    return None


def run_job(order: JobOrder, log: Callable[[str], None]) -> None:
    """Submit a job, or join it where it runs already; pass its log lines on, and wait for its end.

    While this waits it renews the job's lease: when this process dies the lease runs out and the job ends.
    """
    client = connect(order.address)
    before = _submit(client, order)
    try:
        with _leased(order.lease):
            _await_start(client, order, log)
            asyncio.run(_follow(client, order.submission_id, log, before))
            status = _final_status(client, order.submission_id)
    except OSError as error:
        raise EnvironmentFault(
            f"the Ray cluster at {order.address} has stopped answering: start it again, and train again"
        ) from error
    if status != "SUCCEEDED":
        details = client.get_job_info(order.submission_id).message or "no message"
        raise EnvironmentFault(
            f"Ray job {order.submission_id} ended as {status}: {details.strip()[-500:]}; its log is on {order.address}"
        )


def stop_job_of(flow_run_id: str, settings: Settings) -> None:
    """Stop the job of a flow run that was cancelled or has crashed, where it is one on a cluster."""
    if settings.ray_address:
        stop_job(settings.ray_address, f"{PREFIX}{flow_run_id}")


def stop_job(address: str, submission_id: str) -> bool:
    """Stop a job; False where it had ended, or never was."""
    client = connect(address)
    status = _status(client, submission_id)
    return status is not None and not status.is_terminal() and bool(client.stop_job(submission_id))


def connect(address: str) -> "JobSubmissionClient":
    """Return a client of a cluster's Jobs API, after it answered."""
    # Loaded here: most runs start Ray themselves, if they need it, and have no cluster.
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # It writes about its websocket in the middle of the flow's own lines.
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(address)
        client.get_version()
    except AuthenticationError as error:
        raise EnvironmentFault(
            f"the Ray cluster at {address} refuses the token: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the cluster's token file"
        ) from error
    except (OSError, RuntimeError) as error:
        raise EnvironmentFault(
            f"no Ray cluster answers at {address}: start it, or correct or unset RADLOOP_RAY_ADDRESS"
        ) from error
    return client


def watch_lease(
    lease: Path, last_act: Callable[[], None], limit_s: float = LEASE_LIMIT_S
) -> threading.Thread:
    """End this process, after `last_act`, when nobody has renewed the lease for `limit_s`: its flow run is gone."""

    def watch() -> None:
        last, seen_at = "", time.monotonic()
        while True:
            time.sleep(LEASE_BEAT_S)
            # The content is compared, not the file's time: the machines' clocks may differ.
            now = lease.read_text() if lease.exists() else ""
            if now != last:
                last, seen_at = now, time.monotonic()
            elif time.monotonic() - seen_at > limit_s:
                print(
                    f"The flow run that asked for this job has been silent for {limit_s:.0f} s: stopping.",
                    flush=True,
                )
                try:
                    last_act()
                finally:
                    os._exit(3)

    thread = threading.Thread(target=watch, daemon=True, name="lease")
    thread.start()
    return thread


@contextmanager
def _leased(lease: Path) -> Iterator[None]:
    done = threading.Event()

    def renew() -> None:
        beat = 0
        while not done.is_set():
            lease.write_text(f"{os.getpid()} {beat}")
            beat += 1
            done.wait(LEASE_BEAT_S)

    lease.parent.mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=renew, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _submit(client: "JobSubmissionClient", order: JobOrder) -> list[str]:
    """Submit a job unless it runs already; return the lines that an earlier job of its id has left."""
    status, before = _status(client, order.submission_id), list[str]()
    if status is not None and not status.is_terminal():
        return before
    if status is not None:
        # A flow run that is run again, or goes on with its next step, gets a fresh job under its id; Ray writes on in
        # the same file of lines.
        with suppress(RuntimeError):
            before = client.get_job_logs(order.submission_id).splitlines()
        client.delete_job(order.submission_id)
    client.submit_job(
        entrypoint=order.entrypoint,
        submission_id=order.submission_id,
        runtime_env={"env_vars": dict(order.environment)},
    )
    return before


def _await_start(client: "JobSubmissionClient", order: JobOrder, log: Callable[[str], None]) -> None:
    """Return when a job's command was started: it asks for no CPU, but for a node whose agent answers."""
    begun, is_logged = time.monotonic(), False
    while client.get_job_status(order.submission_id) == "PENDING":
        waited_s = time.monotonic() - begun
        if waited_s > order.start_limit_s:
            client.stop_job(order.submission_id)
            raise EnvironmentFault(
                f"the Ray cluster at {order.address} has not started job {order.submission_id} within "
                f"{order.start_limit_s / 60:g} min: look at its page, or set RADLOOP_RAY_WAIT_MIN to more minutes"
            )
        if waited_s > START_LINE_S and not is_logged:
            log(
                f"waiting for the Ray cluster at {order.address} to start job {order.submission_id}; ends after "
                f"{order.start_limit_s / 60:g} min (RADLOOP_RAY_WAIT_MIN)"
            )
            is_logged = True
        time.sleep(0.2)


async def _follow(
    client: "JobSubmissionClient", submission_id: str, log: Callable[[str], None], before: Sequence[str]
) -> None:
    """Pass on the lines of a job but for those of an earlier one, which come first where they come."""
    from aiohttp import ClientError

    rest, old, first = "", deque(before), list[str]()
    try:
        async for lines in client.tail_job_logs(submission_id):
            *whole, rest = (rest + lines).split("\n")
            for line in whole:
                if old and line == old[0]:
                    first.append(old.popleft())
                    continue
                if old:
                    # Not all of the earlier one came: these were of this job, which began alike.
                    for kept in first:
                        log(kept)
                    old.clear()
                log(line)
    except (RuntimeError, ClientError) as error:
        log(f"The job's log lines have broken off ({error}); waiting for its end")
    if rest:
        log(rest)


def _final_status(client: "JobSubmissionClient", submission_id: str) -> "JobStatus":
    while not (status := client.get_job_status(submission_id)).is_terminal():
        time.sleep(0.5)
    return status


def _status(client: "JobSubmissionClient", submission_id: str) -> "JobStatus | None":
    try:
        return client.get_job_status(submission_id)
    except RuntimeError:
        return None
