"""Owns what a person asks of de-identification: from where, to where, and under which options."""

from pydantic import Field

from imaging.deidentify.options import DeidentifyOptions
from tasks.requests import Request


class DeidentifyRequest(Request):
    """Write the DICOM objects of a source, de-identified, into a folder."""

    source: str = Field(
        title="Source",
        pattern=r"^[/~]|://",
        description="Whole path of a folder, .zip or .tar of DICOM files, as in /archive/ct; "
        "or s3://BUCKET/PREFIX or dicomweb+https://HOST/PATH.",
    )
    # A worker of Prefect runs in a folder that is removed after the run, and what a part of a path leads to with it.
    destination: str = Field(
        title="Destination",
        pattern=r"^[/~]",
        description="Whole path of a folder, as in /released/ct: new, or made before from this source with the same "
        "options. Hand out the folder images in it alone.",
    )
    options: DeidentifyOptions = Field(DeidentifyOptions(), title="Options of PS3.15")
