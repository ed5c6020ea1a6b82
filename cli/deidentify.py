"""Command `radloop deidentify`: write a source de-identified, or prove that a folder is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from cli.flow_run import run_flow
from cli.options import Config, ask, read_config
from cli.terminal import console, progress_bar
from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import UserFault
from services.settings import activate
from tasks.requests import DeidentifyRequest, absolute_place

if TYPE_CHECKING:
    from imaging.deidentify.proof.output_search import Hit

NOT_CLEAN = 1
"""The exit code where the proof found something; 2 is for what a person can mend."""
LISTED = 200
"""Lines of hits that are printed: the table counts them all, and a person reads the first."""


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
            prove(verify, against)
            return
        # Loaded here: it takes Prefect and the readers.
        from tasks.deidentification import open_places

        part = read_config(config, DeidentifyRequest) if config else {}
        places = {name: given[name] or part.get(name) for name in ("source", "destination")}
        if not all(places.values()):
            raise UserFault("give the source and the destination: radloop deidentify SRC DST")
        options = {name: given[name] for name in DeidentifyOptions.model_fields}
        asked = {name: absolute_place(str(place)) for name, place in places.items()}
        request = ask(DeidentifyRequest, config, asked | {"options": options})
        open_places(request)
        run_flow("deidentify", request)
        settings = activate()
        if settings.key is None:
            console.print(
                f"Keep a copy of {settings.private / 'pseudonym.key'} in a safe place, and never beside the data: "
                "only with this key can the folder be continued or proven",
                highlight=False,
                soft_wrap=True,
            )


def prove(destination: Path | None, against: str) -> None:
    """Search a destination for what its source must not have given away; exit with 1 where anything is found."""
    from imaging.deidentify.proof.verification import table_rows
    from tasks.deidentification import prove

    if destination is None or not against:
        raise UserFault("a proof needs both: give --verify DST --against SRC")
    with progress_bar("searching", "files") as on_progress:
        done = prove(destination, against, activate(), on_progress)
    table = Table(box=None, show_header=False)
    table.add_column()
    # A digest that is cut off proves nothing.
    table.add_column(overflow="fold")
    for row in table_rows(done):
        table.add_row(*row)
    console.print(table, soft_wrap=True, highlight=False)
    results = [f"found: {place(hit)}" for hit in done.hits] + [f"not proven: {why}" for why in done.unproven]
    for line in results[:LISTED]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(results) > LISTED:
        console.print(f"and {len(results) - LISTED} more", highlight=False)
    if not done.clean:
        raise typer.Exit(NOT_CLEAN)


def place(hit: "Hit") -> str:
    """Return where an original value was found, and of which kind it is; never the value itself.

    >>> from imaging.deidentify.proof.output_search import Hit
    >>> place(Hit(output="images/1.dcm", kind="id", tag=0x00100020, encoding="UTF-8", where="texts", offset=41))
    'images/1.dcm, an id as UTF-8, at byte 41 of its texts'
    """
    article = "an" if hit.kind[0] in "aeio" else "a"
    if hit.where == "name":
        # The name of the file would show the value.
        return f"a file beside the images, {article} {hit.kind} in its name"
    return f"{hit.output}, {article} {hit.kind} as {hit.encoding}, at byte {hit.offset} of its {hit.where}"
