"""Commands `radloop dataset ...`: look into versions, check, verify, tidy and export them."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.render import dataset_tables as render
from cli.terminal import AsJson, print_result, progress_bar, waiting
from imaging.dataset.split.shares import SPLITS
from imaging.dataset.split.test_lock import LOCKED
from imaging.errors import UserFault
from services.settings import Settings, activate

if TYPE_CHECKING:
    from imaging.dataset.version.dataset_version import DatasetVersion

# What reads tables takes most of a second to load, which other commands need not wait for: each command loads its own.

UNSOUND = 1
"""The exit code where something is not as it must be; 2 is for what a person can mend by asking otherwise."""
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
    from imaging.dataset.version.history import list_versions, listed_counts, open_by_name

    store = activate().dataset_store
    listed = list_versions(store, name)
    if name and not listed:
        open_by_name(store, name)
    rows = []
    with progress_bar("counting", "versions") as on_progress:
        for past in listed:
            rows.append({**past.as_json(), **asdict(listed_counts(store, past))})
            on_progress(len(rows), len(listed))
    print_result(rows, render.history(rows), as_json)


def show(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Show what is in a version: counts, refusals, histograms."""
    from imaging.dataset.version.summary import summarize

    summary = summarize(_version(name, digest))
    print_result(asdict(summary), render.summary(summary), as_json)


def diff(
    old: VersionName,
    new: VersionName,
    first: Annotated[int, typer.Option(min=0, help="Keys of each kind that are named.")] = FIRST,
    as_json: AsJson = False,
) -> None:
    """Show what one version has that another has not.

    The exit code is 1 where something changed that never may: the split or the patient of an instance, or its pixels.
    """
    from imaging.dataset.version.compare import compare
    from imaging.dataset.version.history import open_by_name_or_digest

    store = activate().dataset_store
    difference = compare(open_by_name_or_digest(store, old), open_by_name_or_digest(store, new), first)
    print_result(asdict(difference), render.difference(difference), as_json)
    if difference.alarms:
        raise typer.Exit(UNSOUND)


def check(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Search a version for overlaps of its splits, and say whether it can be trained on.

    An overlap is a patient in two splits, or an image that another patient has in another split. The exit code is 1
    where there is one, or where nothing can be trained.
    """
    from imaging.dataset.split.check import find_overlaps

    version = _version(name, digest)
    with waiting("searching for near duplicates"):
        overlaps = find_overlaps(version).to_pylist()
    content = {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "patients_on_two_sides": sum(overlap["distance"] is None for overlap in overlaps),
        "near_duplicates": sum(overlap["distance"] is not None for overlap in overlaps),
        "leaks": overlaps,
        "not_trainable": _not_trainable(version),
    }
    print_result(content, render.overlaps(content), as_json)
    if overlaps or content["not_trainable"]:
        raise typer.Exit(UNSOUND)


def verify(name: Name, digest: Digest = "", as_json: AsJson = False) -> None:
    """Read all that a version is made of, and list what is damaged.

    The exit code is 1 where something is gone, not what its name says, or too short for the rows that point into it.
    """
    from imaging.dataset.upkeep.integrity import find_flaws

    version = _version(name, digest)
    objects = read_bytes = 0

    with progress_bar("reading", "objects") as on_progress:

        def on_object(done: int, total: int, size_bytes: int) -> None:
            nonlocal objects, read_bytes
            objects, read_bytes = done, read_bytes + size_bytes
            on_progress(done, total, read_bytes)

        flaws = find_flaws(version, on_object)
    content = {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "objects": objects,
        "size_bytes": read_bytes,
        "flaws": [asdict(flaw) for flaw in flaws],
    }
    print_result(content, render.flaws(content), as_json)
    if flaws:
        raise typer.Exit(UNSOUND)


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
    from imaging.dataset.upkeep import garbage as collect

    settings = activate()
    store, now_s = settings.dataset_store, time.time()
    named = named_by_mlflow(settings)
    wish = collect.Retention(
        oldest_ns=int((now_s - grace_hours * 3600) * 1e9), keep=keep, pins=tuple(pin or ()), named=named
    )
    with progress_bar("reading", "tables") as on_progress:
        rubbish = collect.find_garbage(store, wish, on_progress)
    temporary_files = 0
    if yes:
        with progress_bar("removing", "objects") as on_progress:
            collect.remove_garbage(store, rubbish, on_progress)
        temporary_files = store.sweep(grace_hours * 3600)
    content = {
        "removed": yes,
        "kept": [past.as_json() for past in rubbish.kept],
        "versions": [past.as_json() for past in rubbish.heads],
        "journals": [one.name for one in rubbish.journals],
        "objects": [one.name for one in rubbish.objects],
        "drafts": temporary_files,
        "size_bytes": rubbish.size_bytes,
        "named_in_mlflow": len(named),
    }
    print_result(content, render.rubbish(content), as_json)


def export_(
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
    from imaging.dataset.version.export import export

    chosen = split or [one for one in SPLITS if one != LOCKED or with_test]
    if unknown := set(chosen).difference(SPLITS):
        raise UserFault(f"there is no split {', '.join(sorted(unknown))}: name some of {', '.join(SPLITS)}")
    if LOCKED in chosen and not with_test:
        raise UserFault(
            f"the patients of split {LOCKED!r} are locked away for the verdict: add --with-test, which is counted, or "
            "name other splits"
        )
    version = _version(name)
    with progress_bar("writing", "images") as on_progress:
        counts = export(version, folder.expanduser().resolve(), chosen, "export", on_progress)
    content = {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "folder": str(folder),
        "examples": counts,
    }
    print_result(content, render.exported(content), as_json)


def named_by_mlflow(settings: Settings) -> frozenset[str]:
    """Return the digests of versions that MLflow's models and runs name."""
    if not settings.has_registry:
        return frozenset()
    # Loaded here: MLflow takes seconds.
    from services.mlflow.registry import named_datasets

    with waiting("asking MLflow which versions it names"):
        return named_datasets(settings)


def _version(name: str, digest: str = "") -> "DatasetVersion":
    from imaging.dataset.version.history import open_by_name

    return open_by_name(activate().dataset_store, name, digest)


def _not_trainable(version: "DatasetVersion") -> str:
    from imaging.dataset.version.dataset_version import check_trainable

    try:
        check_trainable(version)
    except UserFault as fault:
        return str(fault)
    return ""
