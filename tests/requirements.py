"""What tests need of the machine beyond Python's packages, and what happens where it is missing.

In CI a missing thing is a failure; elsewhere its tests are left out, and pytest says so in one line for each reason.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

DATA = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""The folder of larger public image sets, which no package carries; docs/testing.md names them."""

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where property tests write their many small files: elsewhere each one waits for the disk."""


def leave_out(reason: str) -> NoReturn:
    """End the test as left out; in CI, where everything must be there, as failed."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def program(name: str, package: str, path: str | None = None) -> str:
    """Return where a program of one of Debian's packages lies; leave the test out where it is missing."""
    place = shutil.which(name, path=path)
    if place is None:
        leave_out(f"{name} is not installed: install Debian's package {package} (infra/debian.sh)")
    return place


def image_sets() -> Path:
    """Return the folder of the larger image sets; leave the test out where it is missing."""
    if not DATA.is_dir():
        leave_out(
            f"the larger image sets are not at {DATA}: set RADLOOP_DATA to their folder; "
            "the same facts were tested on images that packages carry"
        )
    return DATA
