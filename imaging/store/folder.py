"""Owns bytes by name in a folder: written whole or not at all, and pointers that move by compare-and-swap."""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from imaging.errors import EnvironmentFault

LOCK_TIMEOUT_S = 60
SYNCS = 8
"""Folders that are synced at a time."""


@dataclass(frozen=True, slots=True)
class FolderStore:
    """A store on a local or shared folder; names are relative posix paths."""

    root: Path

    def path(self, name: str) -> Path:
        """Return where a name lives, for readers that map files into memory."""
        return self.root / name

    def exists(self, name: str) -> bool:
        """Say whether a whole object of this name is there."""
        return self.path(name).is_file()

    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""
        return self.path(name).read_bytes()

    def write(self, name: str, content: bytes | memoryview, *, sync_folder: bool = True) -> None:
        """Write an object whole, or leave nothing visible.

        Without `sync_folder` its name may be lost with the power; `sync` many names at once later.
        """
        target = self.path(name)
        with _disk_faults(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=".draft-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(draft).replace(target)
            finally:
                Path(draft).unlink(missing_ok=True)
            if sync_folder:
                _sync(target.parent)

    def rename(self, name: str, new: str) -> None:
        """Give an object another name, in place of what had it; `sync` makes it last."""
        target = self.path(new)
        with _disk_faults(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path(name).replace(target)

    def settle(self, draft: str, name: str) -> None:
        """Make a draft that somebody wrote last through a loss of power, and give it its name; `sync` that."""
        with _disk_faults(self.path(name)):
            _sync(self.path(draft))
            self.path(draft).replace(self.path(name))

    def sync(self, names: Iterable[str]) -> None:
        """Make the names of objects, and those of all folders above them, last through a loss of power."""
        folders = {self.path(str(folder)) for name in names for folder in Path(name).parents}
        # Each waits for the disk, which makes one way of what many ask for at a time.
        with ThreadPoolExecutor(SYNCS) as syncing:
            list(syncing.map(_sync, filter(Path.is_dir, folders)))

    def pointer(self, name: str) -> str | None:
        """Return what a pointer points at, or None where it was never set."""
        return self.read(name).decode().strip() if self.exists(name) else None

    def swap(self, name: str, expected: str | None, new: str) -> bool:
        """Move a pointer from `expected` to `new`; False if somebody else moved it first."""
        target = self.path(name)
        with _disk_faults(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", timeout=LOCK_TIMEOUT_S):
            if self.pointer(name) != expected:
                return False
            self.write(name, f"{new}\n".encode())
        return True


@contextmanager
def _disk_faults(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise EnvironmentFault(
                f"cannot write {target.name} below {target.parent}: {error.strerror}; "
                "make room or give write access, and run again: nothing was published"
            ) from error
        raise


def _sync(path: Path) -> None:
    # A rename is durable only once its folder is on the disk.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
