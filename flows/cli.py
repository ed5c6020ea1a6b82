"""Owns the command line: `radloop run`, `ingest`, `train`, `inspect`, `up` and the others that --help lists."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from flows import deidentify_command, stack_commands
from flows.options import ask
from imaging.errors import RadloopError
from tasks.settings import Settings, activate

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Close the loop between an image archive and a model in use.",
)
console = Console()

Source = Annotated[
    str, typer.Option(help="Folder, archive, s3://..., dicomweb+https://... or .npz with images.")
]
Labels = Annotated[str | None, typer.Option(help="CSV with an identifier column and a label column.")]
LabelColumn = Annotated[str | None, typer.Option(help="Name of the label column, where it is not 'label'.")]
Positive = Annotated[str | None, typer.Option(help="Of two labels, the one that is looked for.")]
Name = Annotated[str | None, typer.Option(help="Name of the dataset and of the model. [default: radloop]")]
Config = Annotated[Path | None, typer.Option(help="YAML or JSON with all parameters; options win over it.")]
Network = Annotated[
    str | None, typer.Option(help="small_cnn, residual_small, resnet18 or mobilenet_v3_small.")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Workers = Annotated[int | None, typer.Option(help="Processes that train together.")]
Version = Annotated[int | None, typer.Option(help="Model version to compare. [default: the challenger]")]
Again = Annotated[bool, typer.Option("--again", help="Train even where nothing has changed.")]


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
    name: Name = None,
    config: Config = None,
    label_column: LabelColumn = None,
    positive: Positive = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    again: Again = False,
) -> None:
    """Run the nightly flow: ingest, train, evaluate, and promote the model if it proves itself."""
    from tasks.preflight import check_input
    from tasks.requests import NightlyRequest

    asked = {
        "source": source,
        "labels": labels,
        "dataset": name,
        "label_column": label_column,
        "positive": positive,
    }
    training = {"network": network, "epochs": epochs, "workers": workers}
    request = ask(NightlyRequest, config, asked | {"training": training, "again": again or None})
    check_input(request)
    with_flow("nightly", request)
    settings = activate()
    stack_commands.remember(settings, request)
    console.print(closing_words(settings, request.dataset), soft_wrap=True)


@app.command()
def ingest(
    source: Source = "",
    labels: Labels = None,
    name: Name = None,
    config: Config = None,
    label_column: LabelColumn = None,
    positive: Positive = None,
) -> None:
    """Take in what is new in a source."""
    from tasks.preflight import check_input
    from tasks.requests import IngestRequest

    asked = {
        "source": source,
        "labels": labels,
        "dataset": name,
        "label_column": label_column,
        "positive": positive,
    }
    request = ask(IngestRequest, config, asked)
    check_input(request)
    with_flow("ingest", request)


@app.command()
def train(
    name: Name = None,
    config: Config = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    again: Again = False,
) -> None:
    """Train a candidate on the newest version of a dataset."""
    from tasks.requests import TrainRequest

    training = {"network": network, "epochs": epochs, "workers": workers}
    with_flow(
        "train", ask(TrainRequest, config, {"dataset": name, "training": training, "again": again or None})
    )


@app.command()
def evaluate(name: Name = None, version: Version = None, config: Config = None) -> None:
    """Compare the newest candidate with the champion; nothing is promoted."""
    from tasks.requests import EvaluateRequest

    with_flow("evaluate", ask(EvaluateRequest, config, {"dataset": name, "version": version}))


@app.command()
def reevaluate(source: Source = "", labels: Labels = None, name: Name = None, config: Config = None) -> None:
    """Measure the champion on the newest labelled data."""
    from tasks.preflight import check_input
    from tasks.requests import ReevaluateRequest

    asked = {"source": source, "labels": labels, "dataset": name}
    request = ask(ReevaluateRequest, config, asked)
    if request.source:
        check_input(request)
    with_flow("reevaluate", request)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="What --source takes: a folder, an archive, s3://..., ...")],
    labels: Labels = None,
    problems: Annotated[Path | None, typer.Option(help="CSV to write: the files with a problem.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what is in a source: patients, studies, series, modalities, syntaxes, problems."""
    from flows.inspect import inspect

    table = Path(labels).expanduser() if labels else None
    inspect(source, table, problems, as_json, Console(stderr=as_json))


stack_commands.register(app)


@app.command()
def demo() -> None:
    """Build a made-up hospital, and let two nights pass over it."""
    from flows.demo import two_nights

    two_nights(console, with_flow, closing_words)


def with_flow(name: str, request: BaseModel, tell: Callable[..., None] | None = None) -> Any:
    """Run a flow in this process, tell its outcome (in its own way where it has one), and return it."""
    from tasks.preflight import check_servers

    started = time.monotonic()
    check_servers(activate())
    from flows import terminal

    console.print(f"[bold]radloop {name}[/bold]: loading", highlight=False)
    flow = load_flow(name)
    terminal.quiet()
    loaded = time.monotonic()
    outcome = flow(request)
    (tell or terminal.tell)(
        console, name, outcome, imports_s=loaded - started, flow_s=time.monotonic() - loaded
    )
    return outcome


def load_flow(name: str) -> Callable[[Any], Any]:
    """Return a flow by its name; loading one loads Prefect, which takes seconds."""
    from importlib import import_module

    return getattr(import_module(f"flows.{name}"), name)


def closing_words(settings: Settings, name: str) -> str:
    """Return where everything can be opened, and the commands that come next."""
    radloop = f"{sys.argv[0]} --home {settings.home}" if settings.home != Path(".radloop") else sys.argv[0]
    return (
        f"\n[bold]MLflow and Prefect[/bold]  {radloop} up   (prints their addresses; runs this every night at 02:00)"
        f"\n[bold]Load the champion[/bold]   mlflow.pyfunc.load_model('models:/{name}@champion')"
        f" with MLFLOW_TRACKING_URI={settings.tracking_uri}"
        f"\n[bold]Your own images[/bold]     {sys.argv[0]} run --source FOLDER --labels LABELS.csv --name NAME"
    )


deidentify_command.register(app, with_flow)


def main() -> None:
    """Run the command line; what a person can mend ends with exit code 2 and without a stack trace."""
    try:
        app()
    except RadloopError as error:
        message = f"[bold red]error:[/bold red] {escape(str(error))}"
        Console(stderr=True).print(message, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
