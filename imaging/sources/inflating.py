"""Owns a file that is read from its beginning to its end, inflated on the way where it is compressed."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from imaging.errors import DataFault, EnvironmentFault
from imaging.sources.members import STEP_BYTES, bomb, is_bomb

COMPRESSIONS: Mapping[bytes, Callable[[Any], Any]] = MappingProxyType(
    {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
)
"""How a file is inflated, by its first bytes."""

HEADER_LIMIT_BYTES = 16 * 2**20
"""The most that one read may ask for: tar's extended headers say themselves how long they are."""


class Inflating:
    """A file with `read`, `tell` and a `seek` that only goes forward, as tarfile needs it.

    Raises DataFault "truncated", "unreadable" or "archive-bomb" where the compressed data ends early, is damaged
    or grows beyond the limits. `last` is what the last `read` returned.
    """

    def __init__(self, path: Path) -> None:
        self._raw = _open(path)
        head = self._raw.peek(8)
        opener = next((found for magic, found in COMPRESSIONS.items() if head.startswith(magic)), None)
        self._stream: IO[bytes] = opener(self._raw) if opener else self._raw
        self.last = b""

    @property
    def compressed(self) -> bool:
        """Whether going forward means to inflate all that lies between."""
        return self._stream is not self._raw

    def tell(self) -> int:
        """Return the position in what comes out."""
        return self._stream.tell()

    def seek(self, position: int) -> None:
        """Go forward; the end of the file is no limit."""
        if position < self.tell():
            raise DataFault("unreadable", "the archive's headers lead back")
        if not self.compressed:
            self._raw.seek(position)
        while self.tell() < position and self.read(min(STEP_BYTES, position - self.tell())):
            pass

    def read(self, size: int) -> bytes:
        """Return this many bytes, or fewer at the end."""
        if not 0 <= size <= HEADER_LIMIT_BYTES:
            raise DataFault(
                "archive-bomb", f"a header claims {size} bytes, the limit is {HEADER_LIMIT_BYTES}"
            )
        try:
            self.last = self._stream.read(size)
        except EOFError:
            raise DataFault("truncated", "the compressed archive is cut short") from None
        except (zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise EnvironmentFault(_cannot(error)) from None
            raise DataFault("unreadable", "the compressed archive is damaged") from None
        if self.compressed and is_bomb(self.tell(), self._raw.tell()):
            raise bomb(self.tell(), self._raw.tell())
        return self.last

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._raw.close()


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise EnvironmentFault(_cannot(error)) from None


def _cannot(error: OSError) -> str:
    return f"cannot read the archive ({error.strerror}): check its permissions and that it is still mounted"
