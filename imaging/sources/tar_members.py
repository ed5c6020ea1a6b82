"""Owns the members of a tar file, plain or compressed with gzip, bzip2 or xz."""

import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock

from imaging.errors import DataFault, UserFault
from imaging.sources.inflating import Inflating
from imaging.sources.members import STEP_BYTES, Member, nanoseconds

END = "(end of the archive)"
"""The name of the entry that stands for all that could not be listed."""

STREAMS = 2
"""Open at once for reading: one that leads, and one behind it for what is asked for a little too late."""


class TarMembers:
    """What the headers in a tar list, one before each member.

    `passes` counts how often reading began at the start of the file: one that is compressed cannot jump back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passes = 0
        self._streams: list[Inflating] = []
        self._lock = Lock()
        self._damage: DataFault | None = None

    def list(self) -> Iterator[Member]:
        """Yield the members in their order, in memory that does not grow with their number."""
        with closing(Inflating(self.path)) as stream:
            try:
                yield from _members(stream)
                _check_end(stream)
            except tarfile.ReadError:
                if stream.tell() <= tarfile.BLOCKSIZE:
                    raise UserFault(f"{self.path.name} is no tar archive: give another one") from None
                yield self._end(DataFault("truncated", "the archive ends within a member"))
            except DataFault as fault:
                # The checksum is over the whole: where it is wrong, nobody knows which member is.
                self._damage = fault if stream.compressed and fault.reason == "unreadable" else None
                yield self._end(fault)
            except (ValueError, RecursionError, tarfile.TarError):
                yield self._end(DataFault("unreadable", "a header of the archive is damaged"))

    def read(self, member: Member) -> bytes:
        """Return a member's bytes; forward is cheap, back is a new start."""
        if self._damage:
            raise DataFault(self._damage.reason, self._damage.detail)
        with self._lock:
            stream = self._stream(member.place)
            stream.seek(member.place)
            parts, left = [], member.size_bytes
            while left and (part := stream.read(min(STEP_BYTES, left))):
                parts.append(part)
                left -= len(part)
        if left:
            raise DataFault("truncated", f"the archive lacks the last {left} of {member.size_bytes} bytes")
        return b"".join(parts)

    def _stream(self, place: int) -> Inflating:
        behind = [stream for stream in self._streams if stream.tell() <= place]
        if behind:
            return max(behind, key=Inflating.tell)
        self.passes += 1
        self._streams.append(Inflating(self.path))
        for old in self._streams[:-STREAMS]:
            old.close()
        self._streams = self._streams[-STREAMS:]
        return self._streams[-1]

    def _end(self, fault: DataFault) -> Member:
        mtime_ns = self.path.stat().st_mtime_ns
        return Member(name=END, size_bytes=0, mtime_ns=mtime_ns, place=0, fault=(fault.reason, fault.detail))


def _members(stream: Inflating) -> Iterator[Member]:
    tar = tarfile.TarFile(fileobj=stream)  # type: ignore[arg-type]  # it needs read, seek and tell
    while info := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]
        if not info.isdir():
            mtime_ns = nanoseconds(info.mtime)
            yield Member(
                name=info.name,
                size_bytes=info.size,
                mtime_ns=mtime_ns,
                place=info.offset_data,
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


def _check_end(stream: Inflating) -> None:
    """Hold the end against POSIX: a block of zeros, and nothing but zeros behind it. tarfile does not care."""
    if len(stream.last) < tarfile.BLOCKSIZE:
        raise DataFault("truncated", "the archive lacks its end: members may be missing")
    if any(stream.last):
        raise DataFault("unreadable", "a header of the archive is damaged: members may be missing")
    while rest := stream.read(STEP_BYTES):
        if rest.count(0) < len(rest):
            raise DataFault("unreadable", "more data follows the end of the archive, which nothing lists")
