"""Owns the entry point of an ingest on a Ray cluster: `python -m tasks.ingest_job FOLDER`."""

import json
import logging
import sys
from pathlib import Path

from services.prefect.progress import Pace
from services.settings import activate
from tasks.ingest import open_job, read_here
from tasks.pending_files import what_is_new
from tasks.requests import IngestRequest


def main(folder: Path) -> None:
    """Prepare what is new on the cluster that started this process; the rows end in the journal."""
    settings = activate()
    import ray

    from services.ray.cluster import watch_lease

    asked = json.loads((folder / "job.json").read_text())
    # The name of a shadow is none that a person may give.
    shadow = {"dataset": asked.pop("dataset")}
    request = IngestRequest.model_validate(asked).model_copy(update=shadow)
    # What is done is done: nothing is left to do at the end.
    watch_lease(folder / "lease", last_act=lambda: None)
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    job = open_job.fn(request, settings)
    files, pace = what_is_new(job).scan.to_read, Pace("files")

    def told(done: int, total: int) -> None:
        print(pace.words(done, total), flush=True)

    read_here(job, files, settings, told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
