"""Owns the demonstration: a made-up hospital, and two nights that pass over it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imaging.phantom.archive import PhantomSpec, write_phantom
from rich.console import Console

from imaging.preprocess import PreprocessSpec, Window
from tasks.requests import NightlyRequest
from tasks.settings import activate

NAME = "phantom"
LUNG = PreprocessSpec(window=Window(center=-300, width=1400), size_px=64)


def two_nights(console: Console, with_flow: Callable[[str, Any], Any], closing: Callable[..., str]) -> None:
    """Write the archive of a first day and run a night; add a second day, and run another."""
    settings = activate()
    archive = settings.folder / "archive"
    for place in (archive, settings.folder / "store", settings.folder / "private"):
        shutil.rmtree(place, ignore_errors=True)
    for day in (1, 2):
        console.rule(f"day {day}")
        written = write_phantom(archive, PhantomSpec(), day=day)
        console.print(f"The made-up hospital has made {written.files} files today", highlight=False)
        with_flow("nightly", request_for(archive))
    console.print(closing(settings, NAME), soft_wrap=True)


def request_for(archive: Path) -> NightlyRequest:
    """Return the nightly request of the made-up hospital."""
    return NightlyRequest(
        source=str(archive / "dicom"),
        labels=str(archive / "labels.csv"),
        dataset=NAME,
        positive="lesion",
        preprocess=LUNG,
    )
