"""Owns the commands `radloop dataset gc` and `export`: what is removed of a store, and what is taken out of it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.answers import AsJson, answer, bar, waiting
from imaging.errors import UserFault
from services.settings import activate

KEEP = 30
GRACE_HOURS = 24.0

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the dataset; NAME@DIGEST is one version of it.")
]


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
    from cli.render import dataset as words
    from imaging.dataset.upkeep import garbage as collect
    from services.mlflow.named_versions import named_versions

    settings = activate()
    store, now_s = settings.dataset_store, time.time()
    with waiting("asking MLflow which versions it names"):
        named = named_versions(settings)
    wish = collect.Wish(
        oldest_ns=int((now_s - grace_hours * 3600) * 1e9), keep=keep, pins=tuple(pin or ()), named=named
    )
    with bar("reading", "tables") as told:
        rubbish = collect.find_rubbish(store, wish, told)
    drafts = 0
    if yes:
        with bar("removing", "objects") as told:
            collect.remove(store, rubbish, told)
        drafts = store.sweep(grace_hours * 3600)
    found = {
        "removed": yes,
        "kept": [past.told() for past in rubbish.kept],
        "versions": [past.told() for past in rubbish.heads],
        "journals": [one.name for one in rubbish.journals],
        "objects": [one.name for one in rubbish.objects],
        "drafts": drafts,
        "size_bytes": rubbish.size_bytes,
        "named_in_mlflow": len(named),
    }
    answer(found, words.rubbish(found), as_json)


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
    from cli.render import dataset as words
    from imaging.dataset.split.assignment import SPLITS
    from imaging.dataset.split.test_lock import LOCKED
    from imaging.dataset.version.export import export
    from imaging.dataset.version.history import named_version

    asked = split or [one for one in SPLITS if one != LOCKED or with_test]
    if unknown := set(asked).difference(SPLITS):
        raise UserFault(f"there is no split {', '.join(sorted(unknown))}: name some of {', '.join(SPLITS)}")
    if LOCKED in asked and not with_test:
        raise UserFault(
            f"the patients of split {LOCKED!r} are locked away for the verdict: add --with-test, which is counted, or "
            "name other splits"
        )
    version = named_version(activate().dataset_store, name)
    with bar("writing", "images") as told:
        counts = export(version, folder.expanduser().resolve(), asked, "export", told)
    found = {
        "dataset": version.head.dataset,
        "digest": version.digest,
        "folder": str(folder),
        "examples": counts,
    }
    answer(found, words.exported(found), as_json)
