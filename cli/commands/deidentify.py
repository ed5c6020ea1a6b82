"""Command `radloop deidentify`: write a source de-identified, or prove that a folder is."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.commands.shared_options import AsJson, Config
from cli.dispatch import carry_out
from imaging.deidentify.options import DeidentifyOptions


def _help(field: str) -> Any:
    option = DeidentifyOptions.model_fields[field]
    default = "off" if option.default is False else option.default
    return typer.Option(help=f"{option.description} [default: {default}]", show_default=False)


Source = Annotated[str, typer.Argument(metavar="SRC", help="What --source takes: a folder, s3://..., ...")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Folder: new, or made before from SRC.")]
Verify = Annotated[
    Path | None, typer.Option(metavar="DST", help="Search this folder instead of writing one.")
]
Against = Annotated[str, typer.Option(metavar="SRC", help="The source whose identifiers are searched for.")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(deidentify)


def deidentify(
    source: Source = "",
    destination: Destination = "",
    verify: Verify = None,
    against: Against = "",
    config: Config = None,
    dates: Annotated[Literal["shift", "remove"] | None, _help("dates")] = None,
    patient_characteristics: Annotated[bool | None, _help("patient_characteristics")] = None,
    device_identity: Annotated[bool | None, _help("device_identity")] = None,
    uids: Annotated[bool | None, _help("uids")] = None,
    safe_private: Annotated[bool | None, _help("safe_private")] = None,
    descriptors: Annotated[bool | None, _help("descriptors")] = None,
    graphics: Annotated[bool | None, _help("graphics")] = None,
    structured: Annotated[bool | None, _help("structured")] = None,
    burned_in: Annotated[Literal["quarantine", "blank"] | None, _help("burned_in")] = None,
    documents: Annotated[Literal["quarantine", "clean"] | None, _help("documents")] = None,
    faces: Annotated[Literal["quarantine", "keep"] | None, _help("faces")] = None,
    patient_variants: Annotated[Literal["report", "join"] | None, _help("patient_variants")] = None,
    as_json: AsJson = False,
) -> None:
    """Write DICOM without what identifies patients, or prove it.

    With SRC and DST, write the objects of SRC, de-identified, into the folder DST. With --verify and --against,
    search a folder that was written so for whatever identifies a patient of its source.
    """
    carry_out("deidentify:deidentify", **locals())
