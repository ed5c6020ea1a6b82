"""Command `radloop deidentify`: write a source de-identified, or prove that a folder is."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.flow_run import checked_request, run_flow
from cli.options import Config, read_config
from cli.terminal import console
from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import UserFault
from services.flow_requests import DeidentifyRequest, absolute_place
from services.settings import activate


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

    @app.command()
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
    ) -> None:
        """Write DICOM without what identifies patients, or prove it.

        With SRC and DST, write the objects of SRC, de-identified, into the folder DST. With --verify and --against,
        search a folder that was written so for whatever identifies a patient of its source.
        """
        given = locals()
        if verify or against:
            if source or destination:
                raise UserFault(
                    "either write (SRC DST) or prove (--verify DST --against SRC): give one of them"
                )
            if verify is None or not against:
                raise UserFault("a proof needs both: give --verify DST --against SRC")
            # Loaded here: it takes the readers.
            from cli.proof import print_proof

            print_proof(verify, against)
            return
        part = read_config(config, DeidentifyRequest) if config else {}
        places = {name: given[name] or part.get(name) for name in ("source", "destination")}
        if not all(places.values()):
            raise UserFault("give the source and the destination: radloop deidentify SRC DST")
        options = {name: given[name] for name in DeidentifyOptions.model_fields}
        asked = {name: absolute_place(str(place)) for name, place in places.items()}
        run_flow("deidentify", checked_request("deidentify", config, asked | {"options": options}))
        settings = activate()
        if settings.key is None:
            console.print(
                f"Keep a copy of {settings.private / 'pseudonym.key'} in a safe place, and never beside the data: "
                "only with this key can the folder be continued or proven",
                highlight=False,
                soft_wrap=True,
            )
