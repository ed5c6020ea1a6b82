"""Owns the flow that writes the objects of a source without what identifies their patients."""

from prefect import flow

from tasks.deidentify import DeidentifyOutcome
from tasks.deidentify_request import DeidentifyRequest


@flow(name="deidentify", log_prints=True, validate_parameters=True)
def deidentify(request: DeidentifyRequest) -> DeidentifyOutcome:
    """Write the DICOM objects of a source, de-identified, into a folder."""
    raise NotImplementedError
