"""Owns the entry point of a training job on a Ray cluster: `python -m tasks.train_job JOB.json`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tasks.fitting import TrainingJob, fit
from tasks.settings import activate


def main(job_file: Path) -> None:
    """Run the job's training on the cluster that started this process, and write its outcome."""
    settings = activate()
    import ray

    from tasks.cluster import watch_lease

    job = TrainingJob(**json.loads(job_file.read_text()))
    watch_lease(job.folder / "lease")
    ray.init(address="auto", log_to_driver=False)
    outcome = fit(job, settings, say=lambda line: print(line, flush=True))
    draft = job.folder / "outcome.json.draft"
    draft.write_text(json.dumps(asdict(outcome)))
    draft.rename(job.folder / "outcome.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
