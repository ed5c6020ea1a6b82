"""Flow of a de-identification: write the DICOM objects of a source without what identifies patients."""

from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from imaging.deidentify.folder.deidentify_outcome import DeidentifyOutcome
from services.flow_requests import DeidentifyRequest
from services.prefect.flow_engine import flow_run_name
from services.ray.jobs import stop_job_of
from services.settings import activate
from tasks.deidentification import deidentify_source
from tasks.report.outcomes import deidentification_markdown


def stop_deidentifying(flow: Any, flow_run: Any, state: Any) -> None:
    """Stop the Ray job of a flow run that was cancelled or has crashed."""
    stop_job_of(str(flow_run.id), activate())


@flow(
    name="deidentify",
    flow_run_name=flow_run_name,
    log_prints=True,
    on_cancellation=[stop_deidentifying],
    on_crashed=[stop_deidentifying],
)
def deidentify(request: DeidentifyRequest) -> DeidentifyOutcome:
    """Write the DICOM objects of a source, de-identified, into a folder."""
    settings = activate()
    outcome = deidentify_source(request, settings, str(runtime.flow_run.id))
    create_markdown_artifact(
        deidentification_markdown(outcome), key="deidentify", description="De-identification"
    )
    return outcome
