"""Protocol of a store: bytes by name, each object whole or absent, and pointers that move by compare-and-swap."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from imaging.errors import EnvironmentFault


class Missing(EnvironmentFault):
    """No object of this name in the store, though something points at it."""


class Damaged(EnvironmentFault):
    """Bytes that are not those that were stored."""


class Unreachable(EnvironmentFault):
    """A server that did not answer, or reported an error that may pass."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object in a listing; `mtime_ns` is the time of its last writing, since 1970."""

    name: str
    size_bytes: int
    mtime_ns: int


class Store(Protocol):
    """Objects by name; a name is a relative posix path whose last part does not begin with a dot.

    A store can be pickled. All methods raise EnvironmentFault where disk, server or credentials are not as they must
    be, and UserFault where a bucket does not exist. Bytes are checked against the digest in their name, where it has
    one (`imaging.store.content_digest`).
    """

    def exists(self, name: str) -> bool:
        """Return whether a whole object of this name is there."""
        ...

    def read(self, name: str) -> bytes:
        """Return the bytes of an object; raise Missing, or Damaged where they are not what was stored."""
        ...

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write an object whole, or leave what was visible before; it is synced to the disk when this returns."""
        ...

    def put(self, name: str, path: Path) -> None:
        """Move a file of this machine into the store, as `write` does; on an error the file stays."""
        ...

    def local(self, name: str) -> Path:
        """Return a file of this machine with an object's bytes, to be mapped and never written; raise as `read`.

        The digest of a folder's own file is not checked: the integrity check of a version does that. A fetched copy
        may be removed after a minute without use, where others need the room: `open` keeps it.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """Open the file that `local` returns; it stays while it, or a mapping of it, is open. Raise as `read`."""
        ...

    def names(self, prefix: str = "") -> Iterator[Stored]:
        """List the objects whose names begin with a prefix, a page at a time."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is removed already."""
        ...

    def sweep(self, age_s: float) -> int:
        """Remove what writers left unfinished that died longer than `age_s` ago; return the number."""
        ...

    def pointer(self, name: str) -> str | None:
        """Return the value of a pointer, or None where it was never set."""
        ...

    def swap(self, name: str, expected: str | None, new: str) -> bool:
        """Move a pointer from `expected` (None: it was never set) to `new`; False if somebody moved it first.

        After True all readers see the new value. Where the store cannot confirm that it lasts, that is a warning in
        the log and no error: after a loss of power the pointer may be back at `expected`, which is whole as well.
        After an error no reader has seen the new value.
        """
        ...
