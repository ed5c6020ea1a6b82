"""Owns what of a store on S3 is kept on this machine: no more than a limit, what was used least recently goes first.

What is mapped or being fetched stays, whichever process does it: the kernel holds a shared lock on an open file, and on
a mapping of it, which ends with them. Only what can be locked alone is removed.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from imaging.store.disk import disk_faults, move, sweep_drafts, write_whole

LIMIT_BYTES = 50 * 10**9
SMALL_BYTES = 2**20
"""What is smaller comes in without a look at the whole folder, and is counted when something larger comes."""
YOUNG_S = 60.0
"""What was asked for so recently may be about to be opened by its path."""
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of copies, which processes share. It grows beyond the limit only by what is in use."""

    folder: Path
    limit_bytes: int = LIMIT_BYTES

    def opened(self, kept: Path) -> BinaryIO | None:
        """Open a copy, which stays while the file or a mapping of it is open; None where there is none."""
        try:
            file = kept.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        flock(file, LOCK_SH)
        if os.fstat(file.fileno()).st_nlink:
            os.utime(file.fileno())
            return file
        file.close()  # removed while it was being opened
        return None

    def asked(self, kept: Path) -> bool:
        """Say whether a copy is there; it stays long enough to be opened."""
        file = self.opened(kept)
        if file:
            file.close()
        return file is not None

    def fetching(self, kept: Path) -> AbstractContextManager[object]:
        """Let one at a time fetch into a folder: of several that want the same, the others wait and find it."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        # One for all of a folder, as a lock of its own for each object would stay when that goes.
        return FileLock(kept.with_name(LOCK))

    def faults(self, kept: Path) -> AbstractContextManager[None]:
        """Tell what to do where nothing can be written."""
        limit = f"{self.limit_bytes / 1e9:g} GB"
        return disk_faults(kept, f"make room (RADLOOP_CACHE_GB, here {limit}, bounds this cache)")

    def make_room(self, size_bytes: int) -> bool:
        """Remove copies until so much fits into the limit and on the disk; say whether it does."""
        if size_bytes < SMALL_BYTES:
            return True
        copies = sorted(_files(self.folder))
        there = sum(size for _, size, _ in copies)
        lacking = max(
            there + size_bytes - self.limit_bytes, size_bytes - shutil.disk_usage(_there(self.folder)).free
        )
        oldest_s = time.time() - YOUNG_S
        for used_s, size, path in copies:
            if lacking <= 0 or used_s > oldest_s:
                break
            lacking -= size if _removed(path, oldest_s) else 0
        return lacking <= 0

    def take(self, kept: Path, path: Path) -> None:
        """Make a file that was sent a copy, renamed where it can be; without room it is gone."""
        # The object is stored: nothing that happens here is a fault.
        with suppress(OSError):
            if self.make_room(path.stat().st_size):
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.utime(path)
                move(path, kept)
        path.unlink(missing_ok=True)

    def write(self, kept: Path, content: bytes) -> None:
        """Keep what was sent, where there is room."""
        with suppress(OSError):
            if self.make_room(len(content)):
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_whole(kept, content)

    def sweep(self, age_s: float) -> int:
        """Remove what was half fetched by those that died so long ago; return how many there were."""
        return sweep_drafts(self.folder, age_s)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each file was last used, its size and its path; drafts too, which others may be writing."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with suppress(FileNotFoundError):
                found = path.stat()
                if name != LOCK:
                    yield found.st_mtime, found.st_size, path


def _removed(path: Path, oldest_s: float) -> bool:
    """Remove a file unless somebody has it open, or has just asked for it."""
    with suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
        flock(file, LOCK_EX | LOCK_NB)
        if os.fstat(file.fileno()).st_mtime <= oldest_s:
            path.unlink()
            return True
    return False


def _there(folder: Path) -> Path:
    return folder if folder.is_dir() else _there(folder.parent)
