"""Durable, atomic writing of files: into a temporary file, synced to the disk, then renamed to its name."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from imaging.errors import EnvironmentFault
from imaging.file_io import write_file

TEMPORARY = ".draft-"
"""Prefix of the names of temporary files."""
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors that stay until a person mends the cause; others may pass (`tasks.retry`)."""


@contextmanager
def disk_faults(target: Path, remedy: str = "make room") -> Iterator[None]:
    """Turn the errors of a disk that cannot be written into EnvironmentFault."""
    try:
        yield
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise EnvironmentFault(
                f"cannot write {target.name} below {target.parent}: {error.strerror}; "
                f"{remedy} or give write access, and run again: nothing was published"
            ) from error
        raise


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file in the folder of the target; remove it where it was not renamed."""
    temporary = target.with_name(f"{TEMPORARY}{token_hex(8)}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(target: Path, content: bytes | memoryview) -> None:
    """Write a file whole, or leave what was visible before; its name lasts once the folder is synced."""
    with temporary_beside(target) as temporary:
        write_file(temporary, [content])
        sync(temporary)
        temporary.replace(target)


def move(path: Path, target: Path) -> None:
    """Rename a file, synced and whole as by `write_whole`; from another file system it is copied, and stays there."""
    sync(path)
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with temporary_beside(target) as temporary:
            shutil.copyfile(path, temporary)
            sync(temporary)
            temporary.replace(target)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, synced so that they last through a loss of power."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk: a rename lasts only then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_temporary(root: Path, age_s: float) -> int:
    """Remove temporary files that were not written to for `age_s`; return their number."""
    latest, count = time.time() - age_s, 0
    for temporary in root.rglob(f"{TEMPORARY}*"):
        try:
            if temporary.stat().st_mtime <= latest:
                temporary.unlink()
                count += 1
        except FileNotFoundError:
            continue  # its writer has just finished
    return count
