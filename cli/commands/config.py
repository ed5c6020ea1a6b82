"""Commands `radloop config ...`: the configuration that a command would take, and faults of a file."""

from pathlib import Path
from typing import Annotated

import typer

from cli.commands import flows
from cli.commands.shared_options import AsJson, Config, Labels
from cli.dispatch import carry_out

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show and check configurations.")


@group.command()
def show(
    source: flows.Source = "",
    labels: Labels = None,
    dataset: flows.Name = None,
    config: Config = None,
    label_column: flows.LabelColumn = None,
    label_separator: flows.LabelSeparator = None,
    findings: flows.Findings = None,
    more_labels: flows.MoreLabels = None,
    masks: flows.Masks = None,
    mask_classes: flows.MaskClasses = None,
    missing: flows.Missing = None,
    positive: flows.Positive = None,
    patient_variants: flows.Variants = None,
    modality: flows.Modality = None,
    window: flows.Window = None,
    objective: flows.Objective = None,
    network: flows.Network = None,
    epochs: flows.Epochs = None,
    workers: flows.Workers = None,
    again: flows.Again = None,
    as_json: AsJson = False,
) -> None:
    """Print what `radloop run` would take with these options, and where each value comes from.

    It is YAML that --config takes, complete with all defaults.
    """
    carry_out("config:show", **locals())


@group.command()
def check(
    file: Annotated[Path, typer.Argument(help="Configuration file.")],
    as_json: AsJson = False,
) -> None:
    """List all faults of a configuration file at once.

    The exit code is 2 where there is one.
    """
    carry_out("config:check", **locals())


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(group, name="config")
