"""Store in a folder: objects are written whole or not at all, and pointers move by compare-and-swap."""

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from imaging.errors import EnvironmentFault
from imaging.store.content_digest import bytes_digest, check_digest, digest_of
from imaging.store.durable_file import disk_faults, make_folder, move, sweep_temporary, sync, write_whole
from imaging.store.protocol import Missing, Stored

LOG = logging.getLogger(__name__)
LOCK_TIMEOUT_S = 60
SYNCS = 8
"""Folders that are synced at a time."""


@dataclass(frozen=True, slots=True)
class FolderStore:
    """A store (`imaging.store.protocol.Store`) on a local or shared folder."""

    root: Path

    def path(self, name: str) -> Path:
        """Return the path of a name, whether there is an object or not."""
        return self.root / name

    def exists(self, name: str) -> bool:
        """Return whether a whole object of this name is there."""
        return self.path(name).is_file()

    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""
        try:
            content = self.path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise self._missing(name) from None
        if digest_of(name):
            check_digest(name, bytes_digest(content))
        return content

    def local(self, name: str) -> Path:
        """Return the file of an object, unread."""
        if not self.exists(name):
            raise self._missing(name)
        return self.path(name)

    def open(self, name: str) -> BinaryIO:
        """Open the file of an object, unread."""
        return self.local(name).open("rb")

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write an object whole, or leave nothing visible."""
        target = self.path(name)
        with disk_faults(target):
            make_folder(target.parent)
            write_whole(target, content)
            sync(target.parent)

    def put(self, name: str, path: Path) -> None:
        """Move a file into the store: renamed on the same file system, otherwise copied first."""
        target = self.path(name)
        with disk_faults(target):
            make_folder(target.parent)
            move(path, target)
            sync(target.parent)
            path.unlink(missing_ok=True)

    def rename(self, name: str, new: str) -> None:
        """Rename an object, in place of one that had the new name; the change lasts after `sync`."""
        target = self.path(new)
        with disk_faults(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path(name).replace(target)

    def finalize(self, partial: str, name: str) -> None:
        """Sync a file that somebody else wrote to the disk, then rename it; the new name lasts after `sync`."""
        with disk_faults(self.path(name)):
            sync(self.path(partial))
            self.path(partial).replace(self.path(name))

    def sync(self, names: Iterable[str]) -> None:
        """Make the names of objects, and those of all folders above them, last through a loss of power."""
        folders = {self.path(str(folder)) for name in names for folder in Path(name).parents}
        # Each call waits for the disk, which serves many requests in one pass.
        with ThreadPoolExecutor(SYNCS) as syncing:
            list(syncing.map(sync, filter(Path.is_dir, folders)))

    def names(self, prefix: str = "") -> Iterator[Stored]:
        """List the objects whose names begin with a prefix, a folder at a time."""
        for place, folders, files in os.walk(self.path(prefix.rpartition("/")[0]), onerror=_unless_gone):
            folders.sort()
            below = Path(place).relative_to(self.root).as_posix()
            for file in sorted(files):
                name = file if below == "." else f"{below}/{file}"
                if name.startswith(prefix) and not file.startswith("."):
                    try:
                        status = (Path(place) / file).stat()
                    except FileNotFoundError:
                        continue  # removed meanwhile
                    yield Stored(name, status.st_size, status.st_mtime_ns)

    def remove(self, name: str) -> None:
        """Remove an object."""
        with disk_faults(self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def sweep(self, age_s: float) -> int:
        """Remove temporary files that were not written to for `age_s`; return their number."""
        return sweep_temporary(self.root, age_s)

    def pointer(self, name: str) -> str | None:
        """Return the value of a pointer, or None where it was never set."""
        try:
            return self.read(name).decode().strip()
        except Missing:
            return None

    def swap(self, name: str, expected: str | None, new: str) -> bool:
        """Move a pointer from `expected` to `new`; False if somebody else moved it first."""
        target = self.path(name)
        with disk_faults(target):
            make_folder(target.parent)
            try:
                with FileLock(target.with_name(f".{target.name}.lock"), timeout=LOCK_TIMEOUT_S):
                    if self.pointer(name) != expected:
                        return False
                    self._point(name, new)
            except Timeout:
                raise EnvironmentFault(
                    f"another process has kept the lock of {name} in {self.root} for {LOCK_TIMEOUT_S} s: "
                    "end it if it hangs, and run again: nothing was published"
                ) from None
        return True

    def _point(self, name: str, new: str) -> None:
        try:
            self.write(name, f"{new}\n".encode())
        except (OSError, EnvironmentFault) as error:
            # Where other readers see the new value already, an error would be wrong.
            if self.pointer(name) != new:
                raise
            cause = type(error.__cause__ or error).__name__
            LOG.warning(
                "a pointer was moved and the disk did not say that this lasts (%s): check the disk; after a loss of "
                "power the pointer may be back where it was, and a run then publishes again",
                cause,
            )

    def _missing(self, name: str) -> Missing:
        return Missing(f"{name} is not in the store {self.root}: restore it from a copy")


def _unless_gone(error: OSError) -> None:
    # Otherwise a folder that cannot be read would look like an empty one.
    if not isinstance(error, FileNotFoundError):
        raise error
