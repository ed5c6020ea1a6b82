"""Owns what a store is: bytes by name, each object whole or absent, and pointers that move by compare-and-swap."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from imaging.errors import EnvironmentFault


class Missing(EnvironmentFault):
    """A store has no object of a name that something points at."""


class Damaged(EnvironmentFault):
    """Bytes are not those that were stored."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object in a listing; the time is that of its last writing, since 1970."""

    name: str
    size_bytes: int
    mtime_ns: int


class Store(Protocol):
    """Objects by name; a name is a relative posix path whose last part does not begin with a dot.

    A store can be pickled. All methods raise EnvironmentFault where disk, server or credentials are not as they must
    be, and UserFault where a bucket does not exist. Names that say their content's digest (`imaging.store.digest`)
    are checked against it.
    """

    def exists(self, name: str) -> bool:
        """Say whether a whole object of this name is there."""
        ...

    def read(self, name: str) -> bytes:
        """Return the bytes of an object; raise Missing, or Damaged where they are not what was stored."""
        ...

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write an object whole, or leave what was visible before; it lasts once this returns."""
        ...

    def put(self, name: str, path: Path) -> None:
        """Make a file of this machine an object, as `write` does; the file is gone after, and stays on an error."""
        ...

    def local(self, name: str) -> Path:
        """Return a file of this machine with an object's bytes, to be mapped and never written; raise as `read`.

        A folder's own files are not read through: that is for whoever checks a version. What was fetched may go when
        nobody has asked for it for a minute and others need the room: `open` holds it.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """Open what `local` returns, which stays while the file, or a mapping of it, is open; raise as `read`."""
        ...

    def names(self, prefix: str = "") -> Iterator[Stored]:
        """List the objects whose names begin with a prefix, a page at a time."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is removed already."""
        ...

    def sweep(self, age_s: float) -> int:
        """Remove what writers that died longer than this ago left half done; return how many there were."""
        ...

    def pointer(self, name: str) -> str | None:
        """Return what a pointer points at, or None where it was never set."""
        ...

    def swap(self, name: str, expected: str | None, new: str) -> bool:
        """Move a pointer from `expected` (None: it was never set) to `new`; False if somebody moved it first.

        True is what readers see. Where they see it and the store cannot say that it lasts, that is a warning in the
        log and no error: after a loss of power the pointer may be back at `expected`, which is whole as well. An
        error says that the pointer was not seen to move.
        """
        ...
