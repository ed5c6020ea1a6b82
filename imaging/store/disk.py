"""Owns how a file gets onto a disk whole: as a draft first, lasting, then by its name."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from imaging.buffer import write_file
from imaging.errors import EnvironmentFault

DRAFT = ".draft-"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""What stays until a person mends it; other errors may pass (`tasks.retry`)."""


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
def drafted(target: Path) -> Iterator[Path]:
    """Give a name for a draft beside the target, and remove what is left of it."""
    draft = target.with_name(f"{DRAFT}{token_hex(8)}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def write_whole(target: Path, content: bytes | memoryview) -> None:
    """Write a file whole, or leave what was visible before; its name lasts when the folder is synced."""
    with drafted(target) as draft:
        write_file(draft, [content])
        sync(draft)
        draft.replace(target)


def move(path: Path, target: Path) -> None:
    """Give a file another place, as `write_whole` does; on another file system it is copied, and stays."""
    sync(path)
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with drafted(target) as draft:
            shutil.copyfile(path, draft)
            sync(draft)
            draft.replace(target)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they last through a loss of power."""
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


def sweep_drafts(root: Path, age_s: float) -> int:
    """Remove drafts that nobody has written to for so long; return how many there were."""
    latest, count = time.time() - age_s, 0
    for draft in root.rglob(f"{DRAFT}*"):
        try:
            if draft.stat().st_mtime <= latest:
                draft.unlink()
                count += 1
        except FileNotFoundError:
            continue  # its writer has just finished
    return count
