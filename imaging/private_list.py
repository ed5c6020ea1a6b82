"""Private lists: CSV files with original names, which only their owner may read."""

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from imaging.file_io import write_file
from imaging.store.durable_file import disk_faults

PROBLEMS = ("what", "where", "reason", "detail")
"""Columns of a list of what was not taken in or passed on."""


def write_private_list(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a list, unless the same one is there. Raises EnvironmentFault where the disk cannot be written."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    # A name of a file need not be text.
    content = text.getvalue().encode(errors="surrogateescape")
    with disk_faults(path):
        with suppress(FileNotFoundError):
            if path.read_bytes() == content:
                return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(path, [content])
