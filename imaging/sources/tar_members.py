"""Members of a tar file, plain or compressed with gzip, bzip2 or xz."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import IO, Any

from imaging.errors import DataFault, UserFault
from imaging.sources.archive_member import STEP_BYTES, Member, bomb_fault, nanoseconds, unreadable

END = "(end of the archive)"
"""Name of the entry that stands for all members that could not be listed."""

READERS = 2
"""Open at once: one that leads, and one behind it for what is asked for a little too late."""

COMPRESSIONS: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""Decompressors, by the first bytes of a file."""

HEADER_LIMIT_BYTES = 16 * 2**20
"""Most bytes of one read: tar's extended headers declare their own length."""


class ForwardReader:
    """File with `read`, `tell` and a `seek` that only goes forward, as tarfile needs it; inflated on the way.

    Raises DataFault "truncated", "unreadable" or "archive-bomb" where the compressed data ends early, is damaged
    or grows beyond the limits. `last` is what the last `read` returned.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._raw = path.open("rb")
        except OSError as error:
            raise unreadable(path, error) from None
        head = self._raw.peek(8)
        opener = next((opener for magic, opener in COMPRESSIONS.items() if head.startswith(magic)), None)
        self._stream: IO[bytes] = opener(self._raw) if opener else self._raw
        self.tell = self._stream.tell
        self.last = b""

    @property
    def compressed(self) -> bool:
        """Whether going forward means to inflate all that lies between."""
        return self._stream is not self._raw

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
                raise unreadable(self.path, error) from None
            raise DataFault("unreadable", "the compressed archive is damaged") from None
        if self.compressed and (fault := bomb_fault(self.tell(), self._raw.tell())):
            raise fault
        return self.last

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._raw.close()


class TarMembers:
    """Members that the headers in a tar list, one before each of them.

    `passes` counts how often reading began at the start of the file: one that is compressed cannot jump back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passes = 0
        self._readers: list[ForwardReader] = []
        self._lock = Lock()
        self._damage: DataFault | None = None

    def list(self) -> Iterator[Member]:
        """Yield the members in their order, in memory that does not grow with their number."""
        with closing(ForwardReader(self.path)) as reader:
            try:
                yield from _members(reader)
                _check_end(reader)
            except tarfile.ReadError:
                if reader.tell() <= tarfile.BLOCKSIZE:
                    raise UserFault(f"{self.path.name} is no tar archive: give another one") from None
                yield self._end(DataFault("truncated", "the archive ends within a member"))
            except DataFault as fault:
                # The checksum is over the whole: where it is wrong, the damaged member is not known.
                self._damage = fault if reader.compressed and fault.reason == "unreadable" else None
                yield self._end(fault)
            except (ValueError, RecursionError, tarfile.TarError):
                yield self._end(DataFault("unreadable", "a header of the archive is damaged"))

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; forward is cheap, back is a new start."""
        if self._damage:
            raise DataFault(self._damage.reason, self._damage.detail)
        with self._lock:
            reader = self._reader(member.position)
            reader.seek(member.position)
            parts, left = [], member.size_bytes
            while left and (part := reader.read(min(STEP_BYTES, left))):
                parts.append(part)
                left -= len(part)
        if left:
            raise DataFault("truncated", f"the archive lacks the last {left} of {member.size_bytes} bytes")
        return b"".join(parts)

    def _reader(self, position: int) -> ForwardReader:
        """Return the open reader that is the nearest before a position, or a new one."""
        behind = [reader for reader in self._readers if reader.tell() <= position]
        if behind:
            return max(behind, key=lambda reader: reader.tell())
        self.passes += 1
        self._readers.append(ForwardReader(self.path))
        for old in self._readers[:-READERS]:
            old.close()
        self._readers = self._readers[-READERS:]
        return self._readers[-1]

    def _end(self, fault: DataFault) -> Member:
        mtime_ns = self.path.stat().st_mtime_ns
        return Member(
            name=END, size_bytes=0, mtime_ns=mtime_ns, position=0, fault=(fault.reason, fault.detail)
        )


def _members(reader: ForwardReader) -> Iterator[Member]:
    tar = tarfile.TarFile(fileobj=reader)  # type: ignore[arg-type]  # it needs read, seek and tell
    while info := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]
        if not info.isdir():
            yield Member(
                name=info.name,
                size_bytes=info.size,
                mtime_ns=nanoseconds(info.mtime),
                position=info.offset_data,
                fault=_fault(info),
            )


def _fault(info: tarfile.TarInfo) -> tuple[str, str] | None:
    if not info.isreg():
        return "archive-link", "the member is a link or a device"
    if info.issparse():
        return "unsupported", "the member is sparse"
    if info.size < 0:
        return "unreadable", "the member has a negative size"
    return None


def _check_end(reader: ForwardReader) -> None:
    """Check the end by POSIX, which tarfile does not: a block of zeros, and nothing but zeros behind it."""
    if len(reader.last) < tarfile.BLOCKSIZE:
        raise DataFault("truncated", "the archive lacks its end: members may be missing")
    if any(reader.last):
        raise DataFault("unreadable", "a header of the archive is damaged: members may be missing")
    while rest := reader.read(STEP_BYTES):
        if rest.count(0) < len(rest):
            raise DataFault("unreadable", "more data follows the end of the archive, which nothing lists")
