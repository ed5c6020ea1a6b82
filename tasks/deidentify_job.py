"""Owns the entry point of a de-identification on a Ray cluster: `python -m tasks.deidentify_job FOLDER`."""

import json
import logging
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from services.settings import activate
from tasks.deidentification import bring_up_to_date
from tasks.deidentify_request import DeidentifyRequest


def main(folder: Path) -> None:
    """Do the job on the cluster that started this process, and write its outcome."""
    settings = activate()
    import ray

    from services.ray.cluster import watch_lease

    request = DeidentifyRequest.model_validate_json((folder / "job.json").read_text())
    # What is done is done, and drafts are dropped by the next run: nothing is left to do at the end.
    watch_lease(folder / "lease", last_act=lambda: None)
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    outcome = bring_up_to_date(request, settings, partial(print, flush=True))
    draft = folder / "outcome.json.draft"
    draft.write_text(json.dumps(asdict(outcome)))
    draft.rename(folder / "outcome.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
