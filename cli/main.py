"""Command line: `radloop run`, `ingest`, `train`, `inspect`, `up` and the other commands that --help lists."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from cli import dataset as dataset_commands
from cli import deidentify as deidentify_command
from cli import stack as stack_commands
from cli.flow_run import checked_request, next_commands, run_flow
from cli.options import Config, Labels
from cli.stop import stoppable
from cli.terminal import AsJson, console
from imaging.errors import RadloopError
from imaging.sources.label_file import MISSING
from services.settings import activate

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help cuts off no name of an option, and takes "[default: ...]" for no markup.
    rich_markup_mode=None,
    help="Close the loop between an image archive and a model in use.",
)

# Each parameter of a command is called as the request calls it: see `asked`.
Source = Annotated[
    str, typer.Option(help="Folder, archive, s3://..., dicomweb+https://... or .npz with images.")
]
LabelColumn = Annotated[str | None, typer.Option(help="Name of the label column, where it is not 'label'.")]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        help="Label that stands for none; may be repeated, and replaces the list. [default: NA, nan, null, ., - ...]",
        show_default=False,
    ),
]
Positive = Annotated[str | None, typer.Option(help="Of two labels, the one that is looked for.")]
Modality = Annotated[str | None, typer.Option(help="Modality that is taken in, as MR. [default: CT]")]
Window = Annotated[
    str | None,
    typer.Option(
        help="CENTER/WIDTH, 'file' for each file's own, or 'auto': percentiles where a file has none. "
        "[default: 40/400 for CT, auto for others]"
    ),
]
Variants = Annotated[
    Literal["report", "join"] | None,
    typer.Option(help="Whether 00123 and 123 are two patients, reported, or one. [default: report]"),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the dataset and of the model. [default: radloop]")
]
Network = Annotated[
    str | None, typer.Option(help="small_cnn, residual_small, resnet18 or mobilenet_v3_small.")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Workers = Annotated[int | None, typer.Option(help="Processes that train together.")]
Version = Annotated[int | None, typer.Option(help="Model version to compare. [default: the challenger]")]
Again = Annotated[bool | None, typer.Option("--again", help="Train even where nothing has changed.")]
PARTS = {"training": ("network", "epochs", "workers"), "preprocess": ("modality", "window")}
"""Options by the part of the request that they belong to."""


@app.callback()
def common(
    home: Annotated[
        Path | None, typer.Option(help="Folder of the embedded default. [default: .radloop]")
    ] = None,
) -> None:
    """Choose the home for this command."""
    if home is not None:
        os.environ["RADLOOP_HOME"] = str(home)


@app.command()
def run(
    source: Source = "",
    labels: Labels = None,
    dataset: Name = None,
    config: Config = None,
    label_column: LabelColumn = None,
    missing: Missing = None,
    positive: Positive = None,
    patient_variants: Variants = None,
    modality: Modality = None,
    window: Window = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    again: Again = None,
) -> None:
    """Take in what is new, train, and promote what proves itself."""
    request = checked_request("nightly", config, asked(locals()))
    run_flow("nightly", request)
    settings = activate()
    stack_commands.remember(settings, request)
    console.print(next_commands(settings, request.dataset), soft_wrap=True)


@app.command()
def ingest(
    source: Source = "",
    labels: Labels = None,
    dataset: Name = None,
    config: Config = None,
    label_column: LabelColumn = None,
    missing: Missing = None,
    positive: Positive = None,
    patient_variants: Variants = None,
    modality: Modality = None,
    window: Window = None,
) -> None:
    """Take in what is new in a source."""
    run_flow("ingest", checked_request("ingest", config, asked(locals())))


@app.command()
def train(
    dataset: Name = None,
    config: Config = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    again: Again = None,
) -> None:
    """Train a candidate on the newest version of a dataset."""
    run_flow("train", checked_request("train", config, asked(locals())))


@app.command()
def evaluate(dataset: Name = None, version: Version = None, config: Config = None) -> None:
    """Compare candidate and champion; nothing is promoted."""
    run_flow("evaluate", checked_request("evaluate", config, asked(locals())))


@app.command()
def reevaluate(
    source: Source = "", labels: Labels = None, dataset: Name = None, config: Config = None
) -> None:
    """Measure the champion on the newest labelled data."""
    run_flow("reevaluate", checked_request("reevaluate", config, asked(locals())))


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="What --source takes: a folder, an archive, s3://..., ...")],
    labels: Labels = None,
    label_column: LabelColumn = None,
    missing: Missing = None,
    problems: Annotated[Path | None, typer.Option(help="CSV to write: the files with a problem.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what is in a source, and what is wrong with it."""
    from cli.inspect import inspect

    table = Path(labels).expanduser() if labels else None
    inspect(source, table, label_column, tuple(missing or MISSING), problems, as_json)


stack_commands.register(app)
deidentify_command.register(app)
dataset_commands.register(app)


@app.command()
def demo() -> None:
    """Build a made-up hospital, and let two nights pass over it."""
    from cli.demo import two_nights

    two_nights()


def asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command that were given, as its request names them.

    >>> asked({"dataset": "d", "epochs": 3, "config": None, "window": None})
    {'dataset': 'd', 'training': {'epochs': 3}}
    """
    options = {name: value for name, value in given.items() if value is not None and name != "config"}
    parts = {
        part: {name: options.pop(name) for name in names if name in options} for part, names in PARTS.items()
    }
    return options | {part: values for part, values in parts.items() if values}


def main() -> None:
    """Run the command line; what a person can mend ends with exit code 2 and without a stack trace."""
    try:
        with stoppable():
            app()
    except RadloopError as error:
        message = f"[bold red]error:[/bold red] {escape(str(error))}"
        Console(stderr=True).print(message, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
