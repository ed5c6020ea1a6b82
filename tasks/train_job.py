"""Owns the entry point of a training job on a Ray cluster: `python -m tasks.train_job JOB.json`."""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from imaging.errors import UserFault
from services.ray.fitting import TrainingJob, fit
from services.settings import activate


def main(job_file: Path) -> None:
    """Run the job's training on the cluster that started this process, and write its outcome."""
    settings = activate()
    import ray

    from services.mlflow.runs import end_run
    from services.ray.cluster import watch_lease

    job = TrainingJob(**json.loads(job_file.read_text()))
    watch_lease(job.folder / "lease", last_act=lambda: end_run(settings, job.run_id, "KILLED"))
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    check_room(job.train["workers"], int(ray.cluster_resources().get("CPU", 0)))
    outcome = fit(job, settings, say=lambda line: print(line, flush=True))
    draft = job.folder / "outcome.json.draft"
    draft.write_text(json.dumps(asdict(outcome)))
    draft.rename(job.folder / "outcome.json")


def check_room(workers: int, processors: int) -> None:
    """Refuse what the cluster has no room for; Ray would wait for room without an end.

    >>> check_room(2, 2)
    """
    if workers > processors:
        raise UserFault(
            f"training asks for {workers} workers and the cluster has {processors} processors: "
            f"set workers to {processors} or fewer, or add nodes"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
