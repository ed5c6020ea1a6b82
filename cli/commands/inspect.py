"""Command `radloop inspect`: what is in a source, before anything is taken in."""

from pathlib import Path
from typing import Annotated

import typer

from cli.commands import flows
from cli.commands.shared_options import AsJson, Labels
from cli.dispatch import carry_out


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(inspect)


def inspect(
    source: Annotated[str, typer.Argument(help="What --source takes: a folder, an archive, s3://..., ...")],
    labels: Labels = None,
    label_column: flows.LabelColumn = None,
    label_separator: flows.LabelSeparator = None,
    findings: flows.Findings = None,
    more_labels: flows.MoreLabels = None,
    missing: flows.Missing = None,
    masks: flows.Masks = None,
    mask_classes: flows.MaskClasses = None,
    problems: Annotated[Path | None, typer.Option(help="CSV to write: the files with a problem.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what is in a source, and what is wrong with it."""
    carry_out("inspect:inspect", **locals())
