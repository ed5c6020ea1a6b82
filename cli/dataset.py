"""Owns the commands `radloop dataset ...`: what versions there are, what is in them, and whether they are sound."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.answers import AsJson, answer, bar, waiting
from cli.dataset_upkeep import Name, export_, gc
from imaging.errors import UserFault
from services.settings import activate

if TYPE_CHECKING:
    # What reads tables takes most of a second to load, which other commands need not wait for.
    from imaging.dataset.version.dataset_version import DatasetVersion

UNSOUND = 1
"""The exit code where something is not as it must be; 2 is for what a person can mend by asking otherwise."""
FIRST = 10
"""Keys of each kind that are named, unless more are asked for."""

Digest = Annotated[
    str,
    typer.Argument(
        metavar="[DIGEST]", help="First digits of the version's digest. [default: the current one]"
    ),
]
One = Annotated[str, typer.Argument(help="A version: NAME, NAME@DIGEST, or first digits of its digest.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Look into dataset versions; check, tidy and export them.",
    )
    for name, command in (
        ("list", list_),
        ("show", show),
        ("diff", diff),
        ("check", check),
        ("verify", verify),
        ("gc", gc),
        ("export", export_),
    ):
        group.command(name)(command)
    app.add_typer(group, name="dataset")


def list_(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="[default: all]")] = "",
    as_json: AsJson = False,
) -> None:
    """List datasets and their versions, the newest first."""
    from cli.render import dataset as words
    from imaging.dataset.version.history import count, named_version, versions

    store = activate().dataset_store
    found = versions(store, name)
    if name and not found:
        named_version(store, name)
    with bar("counting", "versions") as told:
        counted = []
        for past in found:
            counted.append(count(store, past))
            told(len(counted), len(found))
    rows = [{**past.told(), **asdict(one)} for past, one in zip(found, counted, strict=True)]
    answer(rows, words.history(rows), as_json)


def show(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Tell what is in a version: counts, refusals, histograms."""
    from cli.render import dataset as words
    from imaging.dataset.version.history import named_version
    from imaging.dataset.version.summary import summarize

    version = named_version(activate().dataset_store, name, digest)
    summary = summarize(version)
    answer(asdict(summary), words.summary(summary), as_json)


def diff(
    old: One,
    new: One,
    first: Annotated[int, typer.Option(min=0, help="Keys of each kind that are named.")] = FIRST,
    as_json: AsJson = False,
) -> None:
    """Tell what one version has that another has not.

    The exit code is 1 where something changed that never may: the split or the patient of an instance, or its pixels.
    """
    from cli.render import dataset as words
    from imaging.dataset.version.compare import compare
    from imaging.dataset.version.history import find_version

    store = activate().dataset_store
    difference = compare(find_version(store, old), find_version(store, new), first)
    answer(asdict(difference), words.difference(difference), as_json)
    if difference.alarms:
        raise typer.Exit(UNSOUND)


def check(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Search a version for leaks, and say whether it can be trained on.

    A leak is a patient on two sides of the split, or an image that another patient has on another side. The exit code
    is 1 where there is one, or where nothing can be trained.
    """
    from cli.render import dataset as words
    from imaging.dataset.split.check import find_leaks
    from imaging.dataset.version.history import named_version

    version = named_version(activate().dataset_store, name, digest)
    with waiting("searching for near duplicates"):
        leaks = find_leaks(version).to_pylist()
    told = {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "patients_on_two_sides": sum(leak["distance"] is None for leak in leaks),
        "near_duplicates": sum(leak["distance"] is not None for leak in leaks),
        "leaks": leaks,
        "not_trainable": _not_trainable(version),
    }
    answer(told, words.leaks(told), as_json)
    if leaks or told["not_trainable"]:
        raise typer.Exit(UNSOUND)


def verify(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Read all that a version is made of, and list what is damaged.

    The exit code is 1 where something is gone, not what its name says, or too short for the rows that point into it.
    """
    from cli.render import dataset as words
    from imaging.dataset.upkeep.integrity import find_flaws
    from imaging.dataset.version.history import named_version

    version = named_version(activate().dataset_store, name, digest)
    read = [0, 0]

    with bar("reading", "objects") as told:

        def one_more(done: int, total: int, size_bytes: int) -> None:
            read[0], read[1] = done, read[1] + size_bytes
            told(done, total, read[1])

        flaws = find_flaws(version, one_more)
    found = {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "objects": read[0],
        "size_bytes": read[1],
        "flaws": [asdict(flaw) for flaw in flaws],
    }
    answer(found, words.flaws(found), as_json)
    if flaws:
        raise typer.Exit(UNSOUND)


def _not_trainable(version: "DatasetVersion") -> str:
    from imaging.dataset.version.trainable import check_trainable

    try:
        check_trainable(version)
    except UserFault as fault:
        return str(fault)
    return ""
