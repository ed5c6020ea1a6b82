"""Commands `radloop up`, `status` and `down`: the one-machine stack."""

from typing import Annotated

import typer

from cli.commands.shared_options import AsJson, Config, Labels
from cli.dispatch import carry_out

Source = Annotated[
    str, typer.Option(help="Source of the nightly run. [default: that of the last `radloop run`]")
]
Name = Annotated[str | None, typer.Option(help="Name of the dataset and of the model.")]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="[default: that of the last `up`, or a free one]")
]
TimeZone = Annotated[
    str | None, typer.Option(help="Of the schedules, as in Europe/Berlin. [default: the last one, or UTC]")
]

At = Annotated[
    str | None,
    typer.Option(help="When the night runs every day, as in 22:30. [default: the last one, or 02:00]"),
]
ResetSchedules = Annotated[
    bool,
    typer.Option(
        "--reset-schedules", help="Undo what a person changed of schedules, or paused, on Prefect's page."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, status, down):
        app.command()(command)


def up(
    source: Source = "",
    labels: Labels = None,
    name: Name = None,
    config: Config = None,
    prefect_port: Port = None,
    mlflow_port: Port = None,
    ray_port: Port = None,
    time_zone: TimeZone = None,
    at: At = None,
    reset_schedules: ResetSchedules = False,
    as_json: AsJson = False,
) -> None:
    """Start Prefect, MLflow, Ray, a worker and the schedules here."""
    carry_out("stack:up", **locals())


def status(as_json: AsJson = False) -> None:
    """Show what is up, what runs next and last, and who is champion."""
    carry_out("stack:status", **locals())


def down(as_json: AsJson = False) -> None:
    """End exactly what `radloop up` started."""
    carry_out("stack:down", **locals())
