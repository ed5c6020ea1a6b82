"""Flow of an ingest: take in what is new in a source."""

from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.preprocess.spec import UNITS
from imaging.quantities import quantity
from services.flow_requests import IngestRequest
from services.prefect.flow_engine import flow_run_name
from services.prefect.progress import log_of, progress
from services.ray.jobs import stop_job_of
from services.settings import activate
from tasks.ingest import open_job, publish_version, read_new
from tasks.report.ingest_summary import ingest_markdown


def stop_reading(flow: Any, flow_run: Any, state: Any) -> None:
    """Stop the Ray job of a flow run that was cancelled or has crashed."""
    stop_job_of(str(flow_run.id), activate())


@flow(
    name="ingest",
    flow_run_name=flow_run_name,
    log_prints=True,
    validate_parameters=True,
    on_cancellation=[stop_reading],
    on_crashed=[stop_reading],
)
def ingest(request: IngestRequest) -> IngestOutcome:
    """Take in what is new in a source of images, as a version of the dataset."""
    settings = activate()
    job = open_job(request, settings)
    listed, _ = UNITS[job.spec.kind]
    log = log_of(request.dataset)
    log(f"{quantity(len(job.listing), listed)} listed")
    run_id = str(runtime.flow_run.root_flow_run_id or runtime.flow_run.id)
    read = read_new(job, settings, run_id, progress(listed, "ingest-progress", log))
    outcome = publish_version(job, read, settings)
    create_markdown_artifact(
        ingest_markdown(outcome), key="ingest", description=f"Ingest of {request.dataset}"
    )
    return outcome
