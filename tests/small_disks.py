"""Small disks for tests that fill them: file systems in memory, mounted where this machine allows it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.requirements import leave_out


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a disk of a size, as mount writes it, at a new folder; elsewhere tests with injected faults replace it."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        leave_out("only root can mount a small disk; tests with injected faults hold the same facts")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
