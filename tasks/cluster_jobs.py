"""Entry points of jobs on a Ray cluster: `python -m tasks.cluster_jobs train|tune|ingest|deidentify FOLDER`.

In FOLDER, which all nodes see, a file says what to do, a lease is renewed by the flow run that waits for the job, and
a file with the outcome is what the job returns; see `services.ray.jobs.run_step`.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from imaging.dataset.ingest.pending_files import find_pending
from imaging.errors import RadloopError, UserFault
from services.flow_requests import DeidentifyRequest, IngestRequest
from services.mlflow.runs import end_run, end_runs_tagged
from services.open_runs import FLOW_RUN_TAG
from services.prefect.progress import Pace
from services.ray.cluster import join_cluster
from services.ray.jobs import JOB_FILE, LEASE_FILE, OUTCOME_FILE, watch_lease, write_fault
from services.ray.room import await_processor
from services.ray.trainer import TrainingJob, fit, on_ray
from services.settings import Settings, activate

log = partial(print, flush=True)


def train(folder: Path, settings: Settings) -> None:
    """Train on the cluster that started this process."""
    job = TrainingJob(**json.loads((folder / JOB_FILE).read_text()))
    watch_lease(folder / LEASE_FILE, last_act=lambda: end_run(settings, job.run_id, "KILLED"))
    check_room(job.train["workers"], join_cluster())
    _write_outcome(folder, asdict(fit(job, settings, log, on_ray)))


def tune(folder: Path, settings: Settings) -> None:
    """Run the trials of a search on the cluster that started this process."""
    order = json.loads((folder / JOB_FILE).read_text())
    flow_run = order["job"]["tags"][FLOW_RUN_TAG]
    watch_lease(folder / LEASE_FILE, last_act=lambda: end_runs_tagged(settings, FLOW_RUN_TAG, flow_run))
    join_cluster()
    await_processor()
    # By name: it loads torch, which reading and de-identification do without.
    _write_outcome(folder, resolve_name("services.ray.search:search_of_job")(order, settings, log))


def ingest(folder: Path, settings: Settings) -> None:
    """Prepare what is new on the cluster that started this process; the rows end in the journal."""
    from tasks.ingest import open_job, read_here

    values = json.loads((folder / JOB_FILE).read_text())
    # The name of a shadow is none that a person may give.
    shadow = {"dataset": values.pop("dataset")}
    request = IngestRequest.model_validate(values).model_copy(update=shadow)
    # What is done is done: nothing is left to do at the end.
    watch_lease(folder / LEASE_FILE, last_act=lambda: None)
    join_cluster()
    job = open_job.fn(request, settings)
    files, pace = find_pending(job).plan.to_read, Pace("files")
    read_here(job, files, settings, lambda done, total: log(pace.line(done, total)))


def deidentify(folder: Path, settings: Settings) -> None:
    """De-identify on the cluster that started this process."""
    from tasks.deidentification import bring_up_to_date

    request = DeidentifyRequest.model_validate_json((folder / JOB_FILE).read_text())
    # What is done is done, and the next run removes temporary files: nothing is left to do at the end.
    watch_lease(folder / LEASE_FILE, last_act=lambda: None)
    join_cluster()
    _write_outcome(folder, asdict(bring_up_to_date(request, settings, log)))


STEPS: Mapping[str, Callable[[Path, Settings], None]] = MappingProxyType(
    {"train": train, "tune": tune, "ingest": ingest, "deidentify": deidentify}
)


def check_room(workers: int, processors: int) -> None:
    """Refuse what the cluster has no room for; Ray would wait for room without an end.

    >>> check_room(2, 2)
    """
    if workers > processors:
        raise UserFault(
            f"training asks for {workers} workers and the cluster has {processors} processors: "
            f"set workers to {processors} or fewer, or add nodes"
        )


def _write_outcome(folder: Path, outcome: Any) -> None:
    partial_file = folder / f"{OUTCOME_FILE}.partial"
    partial_file.write_text(json.dumps(outcome))
    partial_file.rename(folder / OUTCOME_FILE)


def main(step: str, folder: Path) -> None:
    """Do a step; its fault goes to the flow run as a sentence."""
    try:
        STEPS[step](folder, activate())
    except RadloopError as fault:
        write_fault(folder, fault)
        # Ray Train may still be waiting in a thread of its own, which an ordinary end would wait for.
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
