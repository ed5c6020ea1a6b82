"""Bodies of `radloop dataset ...`: look into versions, check, verify, tidy and export them."""

import time
from dataclasses import asdict
from pathlib import Path

import typer

from cli.render import dataset_tables as render
from cli.terminal import print_result, progress_bar, waiting
from imaging.dataset.split.check import find_overlaps
from imaging.dataset.split.shares import SPLITS
from imaging.dataset.split.test_lock import LOCKED
from imaging.dataset.upkeep import garbage as collect
from imaging.dataset.upkeep.integrity import find_flaws
from imaging.dataset.version.compare import compare
from imaging.dataset.version.dataset_version import DatasetVersion, check_trainable
from imaging.dataset.version.export import export as write_export
from imaging.dataset.version.history import (
    list_versions,
    listed_counts,
    open_by_name,
    open_by_name_or_digest,
)
from imaging.dataset.version.summary import summarize
from imaging.errors import UserFault
from services.settings import Settings

UNSOUND = 1
"""The exit code where something is not as it must be; 2 is for what a person can mend by asking otherwise."""


def list_(name: str, as_json: bool) -> None:
    """List datasets and their versions, the newest first."""
    store = Settings().dataset_store
    listed = list_versions(store, name)
    if name and not listed:
        open_by_name(store, name)
    rows = []
    with progress_bar("counting", "versions") as on_progress:
        for past in listed:
            rows.append({**past.as_json(), **asdict(listed_counts(store, past))})
            on_progress(len(rows), len(listed))
    print_result(rows, render.history(rows), as_json)


def show(name: str, digest: str, as_json: bool) -> None:
    """Show what is in a version: counts, refusals, histograms."""
    summary = summarize(_version(name, digest))
    print_result(asdict(summary), render.summary(summary), as_json)


def diff(old: str, new: str, first: int, as_json: bool) -> None:
    """Show what one version has that another has not.

    The exit code is 1 where something changed that never may: the split or the patient of an instance, or its pixels.
    """
    store = Settings().dataset_store
    difference = compare(open_by_name_or_digest(store, old), open_by_name_or_digest(store, new), first)
    print_result(asdict(difference), render.difference(difference), as_json)
    if difference.alarms:
        raise typer.Exit(UNSOUND)


def check(name: str, digest: str, as_json: bool) -> None:
    """Search a version for overlaps of its splits, and say whether it can be trained on.

    An overlap is a patient in two splits, or an image that another patient has in another split. The exit code is 1
    where there is one, or where nothing can be trained.
    """
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


def verify(name: str, digest: str, as_json: bool) -> None:
    """Read all that a version is made of, and list what is damaged.

    The exit code is 1 where something is gone, not what its name says, or too short for the rows that point into it.
    """
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


def gc(keep: int, pin: list[str] | None, grace_hours: float, yes: bool, as_json: bool) -> None:
    """Remove what no version needs that is new, current, pinned or named.

    Named are the versions that MLflow's models and runs were made from or measured on; the current one of a dataset,
    and the one before a young one, stay too. Only versions, their tables and images, and what nights left half done
    are looked at. Images that stand in what a night has left are kept once more, and go the next time.
    """
    settings = Settings()
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


def export(name: str, folder: Path, split: list[str] | None, with_test: bool, as_json: bool) -> None:
    """Write labelled images and rows as numpy and Parquet files.

    SPLIT.npy has the images and SPLIT.parquet their rows, in one order; dataset.json has the classes and how the
    images were prepared.
    """
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
        counts = write_export(version, folder.expanduser().resolve(), chosen, "export", on_progress)
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


def _version(name: str, digest: str = "") -> DatasetVersion:
    return open_by_name(Settings().dataset_store, name, digest)


def _not_trainable(version: "DatasetVersion") -> str:
    try:
        check_trainable(version)
    except UserFault as fault:
        return str(fault)
    return ""
