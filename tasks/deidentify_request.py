"""Owns what a person asks of de-identification: from where, to where, and under which options."""

from pydantic import Field

from imaging.deidentify.options import DeidentifyOptions
from tasks.requests import Request


class DeidentifyRequest(Request):
    """Write the DICOM objects of a source, de-identified, into a folder."""

    source: str = Field(
        "",
        title="Source",
        description="Folder, .zip or .tar of DICOM files, s3://BUCKET/PREFIX or dicomweb+https://HOST/PATH.",
    )
    destination: str = Field(
        "",
        title="Destination",
        description="Folder for the de-identified files: new, or made before from this source.",
    )
    options: DeidentifyOptions = Field(DeidentifyOptions(), title="Options of PS3.15")
