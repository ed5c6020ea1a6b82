"""Owns the flow that takes in what is new in a source."""

import time

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.words import ingest_words
from tasks.ingest import IngestOutcome, ingest_chunk, open_job, publish_version
from tasks.requests import IngestRequest
from tasks.settings import activate


@flow(name="ingest", flow_run_name="ingest {request.dataset}", log_prints=True, validate_parameters=True)
def ingest(request: IngestRequest) -> IngestOutcome:
    """Take in what is new in a source of images, as a version of the dataset."""
    settings = activate()
    job = open_job(request, settings)
    total = len(job.plan.to_read)
    print(f"{job.plan.listed} files listed, {total} to read")
    results, done, started = [], 0, time.monotonic()
    with job.workers() as workers:
        for files in job.plan.chunks():
            results.append(ingest_chunk(job, files, settings.folder_store, workers))
            done += len(files)
            rate = done / (time.monotonic() - started)
            print(f"{done}/{total} files, {rate:.0f} files/s, {(total - done) / rate:.0f} s left")
    outcome = publish_version(job, request, results, settings)
    create_markdown_artifact(ingest_words(outcome), key="ingest", description=f"Ingest of {request.dataset}")
    return outcome
