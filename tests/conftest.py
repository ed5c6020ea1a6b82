"""Fixtures that many test modules share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real public images, see README."""
    folder = Path(os.environ.get("RADLOOP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.fail(f"{folder} does not exist: set RADLOOP_DATA to the folder with the real test images")
    return folder
