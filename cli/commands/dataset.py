"""Commands `radloop dataset ...`: look into versions, check, verify, tidy and export them."""

from pathlib import Path
from typing import Annotated

import typer

from cli.commands.shared_options import AsJson
from cli.dispatch import carry_out

FIRST = 10
"""Keys of each kind that are named, unless more are asked for."""
KEEP = 30
GRACE_HOURS = 24.0

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the dataset; NAME@DIGEST is one version of it.")
]
Digest = Annotated[
    str,
    typer.Argument(
        metavar="[DIGEST]", help="First digits of the version's digest. [default: the current one]"
    ),
]
VersionName = Annotated[
    str, typer.Argument(help="A version: NAME, NAME@DIGEST, or first digits of its digest.")
]

group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look into dataset versions; check, tidy and export them.",
)


@group.command("list")
def list_(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="[default: all]")] = "",
    as_json: AsJson = False,
) -> None:
    """List datasets and their versions, the newest first."""
    carry_out("dataset:list_", **locals())


@group.command()
def show(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Show what is in a version: counts, refusals, histograms."""
    carry_out("dataset:show", **locals())


@group.command()
def diff(
    old: VersionName,
    new: VersionName,
    first: Annotated[int, typer.Option(min=0, help="Keys of each kind that are named.")] = FIRST,
    as_json: AsJson = False,
) -> None:
    """Show what one version has that another has not.

    The exit code is 1 where something changed that never may: the split or the patient of an instance, or its pixels.
    """
    carry_out("dataset:diff", **locals())


@group.command()
def check(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Search a version for overlaps of its splits, and say whether it can be trained on.

    An overlap is a patient in two splits, or an image that another patient has in another split. The exit code is 1
    where there is one, or where nothing can be trained.
    """
    carry_out("dataset:check", **locals())


@group.command()
def verify(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Read all that a version is made of, and list what is damaged.

    The exit code is 1 where something is gone, not what its name says, or too short for the rows that point into it.
    """
    carry_out("dataset:verify", **locals())


@group.command()
def gc(
    keep: Annotated[int, typer.Option(min=1, help="Newest versions of each dataset that stay.")] = KEEP,
    pin: Annotated[
        list[str] | None, typer.Option(help="First digits of a version that stays; may be repeated.")
    ] = None,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="What is younger stays: a night may be running.")
    ] = GRACE_HOURS,
    yes: Annotated[
        bool, typer.Option("--yes/--dry-run", help="Remove it, or say what would be removed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no version needs that is new, current, pinned or named.

    Named are the versions that MLflow's models and runs were made from or measured on; the current one of a dataset,
    and the one before a young one, stay too. Only versions, their tables and images, and what nights left half done
    are looked at. Images that stand in what a night has left are kept once more, and go the next time.
    """
    carry_out("dataset:gc", **locals())


@group.command()
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder, for you alone.")],
    split: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated. [default: train and val]", show_default=False),
    ] = None,
    with_test: Annotated[
        bool,
        typer.Option("--with-test", help="The locked test patients too; it is written down and counted."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write labelled images and rows as numpy and Parquet files.

    SPLIT.npy has the images and SPLIT.parquet their rows, in one order; dataset.json has the classes and how the
    images were prepared.
    """
    carry_out("dataset:export", **locals())


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(group, name="dataset")
