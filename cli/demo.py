"""Demonstration: a made-up hospital, and two nights over it."""

import shutil
from pathlib import Path

from cli.flow_run import run_flow
from cli.night import next_commands
from cli.schedules import remember
from cli.terminal import console
from imaging.errors import UserFault
from imaging.image.window import Window
from imaging.phantom.phantom_archive import write_phantom
from imaging.phantom.schedule import PhantomSpec
from imaging.preprocess.spec import PreprocessSpec
from imaging.quantities import quantity
from models.config import TrainConfig
from services.flow_requests import NightlyRequest
from services.prefect.server import end_server
from services.settings import Settings, activate
from services.stack_file import running_stack

NAME = "phantom"
LUNG = PreprocessSpec(window=Window(center=-300, width=1400), size_px=64)


def two_nights() -> None:
    """Write the archive of a first day and run a night; add a second day, and run another.

    Its home is its own, below the usual one, and emptied first: nobody's data is touched.
    """
    empty(Settings().folder)
    settings = activate()
    archive = settings.folder / "archive"
    for day in (1, 2):
        console.rule(f"day {day}")
        written = write_phantom(archive, PhantomSpec(), day=day)
        console.print(
            f"The made-up hospital has made {quantity(written.files, 'files')} today", highlight=False
        )
        run_flow("nightly", request_for(archive))
    remember(settings, request_for(archive))
    console.print(next_commands(settings, NAME), soft_wrap=True)


def empty(home: Path) -> None:
    """Remove the home of an earlier demonstration, unless its servers are up."""
    if running_stack(home):
        raise UserFault(
            f"the servers of an earlier demonstration are up: end them with `radloop --home {home} down`"
        )
    end_server(home)
    shutil.rmtree(home, ignore_errors=True)


def request_for(archive: Path) -> NightlyRequest:
    """Return the nightly request of the made-up hospital."""
    return NightlyRequest(
        source=str(archive / "dicom"),
        labels=str(archive / "labels.csv"),
        dataset=NAME,
        positive="lesion",
        preprocess=LUNG,
        # Nine validation patients choose worse than none (docs/numbers.md, The choice of the epoch).
        training=TrainConfig(epochs=12, measure="last"),
    )
