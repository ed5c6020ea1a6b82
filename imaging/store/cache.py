"""Cache of a store on S3 on this machine: local copies up to a limit, the least recently used are removed first.

A copy that is open, mapped or being fetched stays, whichever process does it: each takes a shared lock on the open
file, which the kernel releases with the last mapping. Only a file that can be locked exclusively is removed.
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

from imaging.store.durable_file import disk_faults, move, sweep_temporary, write_whole

LIMIT_BYTES = 50 * 10**9
SMALL_BYTES = 2**20
"""A smaller file is added without listing the folder, and is counted when a larger one comes."""
YOUNG_S = 60.0
"""A copy that was used so recently may be about to be opened by its path."""
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of copies that several processes share. It exceeds the limit only by files in use."""

    folder: Path
    limit_bytes: int = LIMIT_BYTES

    def open(self, copy: Path) -> BinaryIO | None:
        """Open a copy, which stays while the file or a mapping of it is open; return None where there is none."""
        try:
            file = copy.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        flock(file, LOCK_SH)
        if os.fstat(file.fileno()).st_nlink:
            os.utime(file.fileno())
            return file
        file.close()  # removed while it was being opened
        return None

    def has(self, copy: Path) -> bool:
        """Return whether a copy is there, and mark it as used: it stays long enough to be opened."""
        file = self.open(copy)
        if file:
            file.close()
        return file is not None

    def fetch_lock(self, copy: Path) -> AbstractContextManager[object]:
        """Return the lock under which one process at a time fetches into a folder; the others then find the copy."""
        copy.parent.mkdir(parents=True, exist_ok=True)
        # One for all of a folder: the lock file of a single object would stay when its copy is removed.
        return FileLock(copy.with_name(LOCK))

    def faults(self, copy: Path) -> AbstractContextManager[None]:
        """Turn the errors of a full or read-only disk into EnvironmentFault with the remedy."""
        limit = f"{self.limit_bytes / 1e9:g} GB"
        return disk_faults(copy, f"make room (RADLOOP_CACHE_GB, here {limit}, bounds this cache)")

    def make_room(self, size_bytes: int) -> bool:
        """Remove copies until so much fits into the limit and on the disk; return whether it does."""
        if size_bytes < SMALL_BYTES:
            return True
        copies = sorted(_files(self.folder))
        used = sum(size for _, size, _ in copies)
        free = shutil.disk_usage(_existing(self.folder)).free
        lacking = max(used + size_bytes - self.limit_bytes, size_bytes - free)
        oldest_s = time.time() - YOUNG_S
        for used_s, size, path in copies:
            if lacking <= 0 or used_s > oldest_s:
                break
            lacking -= size if _removed(path, oldest_s) else 0
        return lacking <= 0

    def add_file(self, copy: Path, path: Path) -> None:
        """Move an uploaded file into the cache; without room it is removed."""
        # The object is stored: nothing that happens here is a fault.
        with suppress(OSError):
            if self.make_room(path.stat().st_size):
                copy.parent.mkdir(parents=True, exist_ok=True)
                os.utime(path)
                move(path, copy)
        path.unlink(missing_ok=True)

    def add_bytes(self, copy: Path, content: bytes) -> None:
        """Write uploaded bytes into the cache, where there is room."""
        with suppress(OSError):
            if self.make_room(len(content)):
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_whole(copy, content)

    def sweep(self, age_s: float) -> int:
        """Remove files that processes were fetching when they died longer than `age_s` ago; return their number."""
        return sweep_temporary(self.folder, age_s)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time of last use, size and path of each file; temporary ones too, which others may be writing."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with suppress(FileNotFoundError):
                status = path.stat()
                if name != LOCK:
                    yield status.st_mtime, status.st_size, path


def _removed(path: Path, oldest_s: float) -> bool:
    """Remove a file unless a process has it open or has just used it; return whether it was removed."""
    with suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
        flock(file, LOCK_EX | LOCK_NB)
        if os.fstat(file.fileno()).st_mtime <= oldest_s:
            path.unlink()
            return True
    return False


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() else _existing(folder.parent)
