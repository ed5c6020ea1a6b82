"""Steps of a de-identification: compare the source with the ledger, do the chunks, remove what is gone."""

import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.deidentify.folder.deidentify_outcome import DeidentifyOutcome, deidentify_outcome
from imaging.deidentify.folder.destination import Destination
from imaging.deidentify.folder.file_ledger import (
    InstanceContents,
    ReadPlan,
    latest,
    output_digests,
    plan_reading,
)
from imaging.deidentify.payload import FUNCTION
from imaging.errors import UserFault
from imaging.quantities import quantity
from services.destination_checks import existing_key, made_with, open_places
from services.flow_requests import DeidentifyRequest, absolute_place
from services.prefect.progress import Pace, log_of
from services.ray.chunk_pool import one_behind, run_chunks
from services.ray.deidentify_worker import FACTORY
from services.ray.jobs import run_step
from services.settings import Settings
from tasks.retry import INPUT_OUTPUT


@task(name="de-identify", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def deidentify_source(request: DeidentifyRequest, settings: Settings, flow_run_id: str) -> DeidentifyOutcome:
    """Bring a destination up to date with its source; done again it reads only what is new."""
    log = log_of(request.destination)
    if settings.ray_address:
        return bring_up_to_date_on_cluster(request, settings, flow_run_id, log)
    return bring_up_to_date(request, settings, log)


def bring_up_to_date_on_cluster(
    request: DeidentifyRequest, settings: Settings, flow_run_id: str, log: Callable[[str], None]
) -> DeidentifyOutcome:
    """De-identify as a job of the cluster at RADLOOP_RAY_ADDRESS; its nodes see home, source and destination."""
    # Here first: what a person can mend is raised without a job.
    _, destination = open_places(request)
    destination.check(made_with(request, existing_key(settings, destination).fingerprint))
    # Private, since the name of the source may tell of a patient.
    folder = settings.private / "deidentify" / flow_run_id
    places = {"source": absolute_place(request.source), "destination": str(destination.root)}
    job = request.model_copy(update=places).model_dump_json()
    try:
        outcome = run_step("deidentify", job, folder, flow_run_id, settings, log)
        return DeidentifyOutcome(**json.loads(outcome.read_text()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bring_up_to_date(
    request: DeidentifyRequest, settings: Settings, log: Callable[[str], None], function: str = FUNCTION
) -> DeidentifyOutcome:
    """Write the objects of new files, remove those of files that are gone; `function` is what the sandbox calls."""
    source, destination = open_places(request)
    pseudonyms = existing_key(settings, destination)
    with destination.locked(made_with(request, pseudonyms.fingerprint)):
        files = tuple(source.scan())
        work = plan_reading(files, latest(destination.ledger.read()), pseudonyms)
        _check_same_source(work, destination)
        log(f"{quantity(len(files), 'files')} listed, {len(work.to_read):,} to read")
        if work.to_read:
            order = {
                "source": absolute_place(request.source),
                "options": request.options.model_dump_json(),
                "home": str(settings.folder),
                "key_fingerprint": pseudonyms.fingerprint,
                "function": function,
            }
            _read(work, order, destination, log)
        destination.sweep(work.removed)
        return deidentify_outcome(destination, work, settings.private)


def _check_same_source(work: ReadPlan, destination: Destination) -> None:
    if work.removed.num_rows and work.removed.num_rows == work.known:
        raise UserFault(
            f"none of the {work.known} files that {destination.root} was made from is in the source, so that all of it "
            "would go: give the source that it was made from, or a new destination"
        )


def _read(
    work: ReadPlan, order: Mapping[str, Any], destination: Destination, log: Callable[[str], None]
) -> None:
    done, pace = 0, Pace("files")
    instances = InstanceContents(output_digests(work.current))
    with destination.partial_files() as folder:
        chunks = run_chunks(FACTORY, {**order, "drafts": str(folder)}, work.to_read)
        # A commit waits for the disk, and meanwhile the workers shall not wait for it.
        for decided in one_behind(lambda chunk: destination.commit(folder, chunk[1], instances), chunks):
            done += len(decided)
            log(pace.line(done, len(work.to_read)))
