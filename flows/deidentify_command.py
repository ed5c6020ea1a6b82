"""Owns the command `radloop deidentify`: write a source de-identified, or prove that it was."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from flows.options import ask, overlay
from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import UserFault
from tasks.settings import activate

console = Console()

NOT_CLEAN = 1
"""The exit code where the proof found something; 2 is for what a person can mend."""


def _help(field: str) -> Any:
    return typer.Option(help=DeidentifyOptions.model_fields[field].description, show_default=False)


Source = Annotated[str, typer.Argument(metavar="SRC", help="What --source takes: a folder, s3://..., ...")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Folder: new, or made before from SRC.")]
Config = Annotated[Path | None, typer.Option(help="YAML or JSON with all parameters; options win over it.")]
Verify = Annotated[
    Path | None, typer.Option(metavar="DST", help="Search this folder instead of writing one.")
]
Against = Annotated[str, typer.Option(metavar="SRC", help="The source whose identifiers are searched for.")]


def register(app: typer.Typer, with_flow: Callable[..., Any]) -> None:
    """Add the command; `with_flow` runs a flow in this process and tells its outcome."""

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
        """Write the DICOM objects of SRC into DST without what identifies patients, or prove that it was done."""
        given = locals()
        if verify or against:
            prove(verify, against)
            return
        from tasks.deidentify import open_places
        from tasks.deidentify_request import DeidentifyRequest

        options = {name: given[name] for name in DeidentifyOptions.model_fields}
        places = {"source": source, "destination": destination}
        request = ask(DeidentifyRequest, None, overlay(_read(config), {**places, "options": options}))
        open_places(request)
        with_flow("deidentify", request, tell)


def tell(console: Console, name: str, outcome: Any, imports_s: float, flow_s: float) -> None:
    """Print what was done, and where the time went."""
    from flows.deidentify_words import deidentify_words

    console.print(Markdown(deidentify_words(outcome)))
    console.print(f"took {imports_s:.1f} s to load and {flow_s:.1f} s to run", highlight=False)


def prove(destination: Path | None, against: str) -> None:
    """Search a destination for what its source must not have given away; exit with 1 where anything is found."""
    from imaging.deidentify.proof.signed import lines
    from tasks.deidentify import prove

    if destination is None or not against:
        raise UserFault("a proof needs both: give --verify DST --against SRC")
    columns = (
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("searching", total=None)
        done = prove(
            destination, against, activate(), lambda at, of: progress.update(bar, completed=at, total=of)
        )
    table = Table(box=None, show_header=False)
    table.add_column()
    # A digest that is cut off proves nothing.
    table.add_column(overflow="fold")
    for line in lines(done):
        table.add_row(*line)
    console.print(table, soft_wrap=True, highlight=False)
    for hit in done.hits:
        console.print(
            f"found: {hit.output}, a {hit.kind} as {hit.encoding}, at byte {hit.offset}", highlight=False
        )
    for one in done.unproven:
        console.print(f"not proven: {one}", highlight=False)
    if not done.clean:
        raise typer.Exit(NOT_CLEAN)


def _read(config: Path | None) -> Mapping[str, Any]:
    if config is None:
        return {}
    if not config.is_file():
        raise UserFault(f"no configuration file at {config}: give --config the path of a YAML or JSON file")
    try:
        content = yaml.safe_load(config.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserFault(f"{config} is not valid YAML: {error}; correct it there") from error
    if not isinstance(content, dict):
        raise UserFault(f"{config} must hold names with values, such as 'source: FOLDER'")
    return content
