"""Reading of files into one buffer that is used again, and writing of files in one call."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from imaging.errors import DataFault, EnvironmentFault

PARTS_AT_ONCE = 512
"""Half of the parts that one call accepts (IOV_MAX of Linux)."""
MAPPED_BYTES = 64 * 2**20
"""From this size on a file is mapped: frames of a large object are read one by one."""

Content = Path | bytes
"""A file of this machine, or the bytes of one."""


class FileBuffer:
    """Buffer for reading files: fresh memory for half a megabyte costs up to three times the read.

    The result of a call is valid until the next call, so images must be prepared or copied before.
    """

    def __init__(self) -> None:
        self._bytes = _pages(2 * 2**20)

    def load(self, content: Content, limit_bytes: int) -> bytes | memoryview:
        """Return the bytes of a file, or bytes as they are; raise DataFault "too-large" for a file above the limit."""
        if isinstance(content, bytes):
            return content
        with open_to_read(content) as (descriptor, size):
            if size > limit_bytes:
                raise DataFault("too-large", f"the file has {size} bytes, the limit is {limit_bytes}")
            if size >= MAPPED_BYTES:
                return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
            return self._read(descriptor, size)

    def mapped(self, content: Content) -> bytes | memoryview:
        """Return the bytes of a file, mapped: of use where only a few of them are looked at."""
        if isinstance(content, bytes):
            return content
        with open_to_read(content) as (descriptor, size):
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)) if size else b""

    def head(self, content: Content, count: int) -> tuple[bytes | memoryview, int]:
        """Return the first bytes of a file, at most `count`, and the size of the whole."""
        if isinstance(content, bytes):
            return content[:count], len(content)
        with open_to_read(content) as (descriptor, size):
            return self._read(descriptor, min(size, count)), size

    def _read(self, descriptor: int, size: int) -> memoryview:
        if size > len(self._bytes):
            self._bytes = _pages(size + size // 4)
        view, at = memoryview(self._bytes), 0
        while at < size:
            count = os.preadv(descriptor, [view[at:size]], at)
            if not count:
                break  # the file became shorter meanwhile: its reader will find it truncated
            at += count
        return view[:at]


@cache
def process_buffer() -> FileBuffer:
    """Return the buffer of this process, for workers that read one file at a time."""
    return FileBuffer()


def write_file(path: Path, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Write a file that only its owner can read, in one call if the kernel accepts all of it; raise OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        left = [memoryview(part).cast("B") for part in parts]
        while left:
            count = os.writev(descriptor, left[:PARTS_AT_ONCE])
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if left:
                left[0] = left[0][count:]
    finally:
        os.close(descriptor)


def _pages(size: int) -> mmap.mmap:
    """Return memory that is aligned to a page: the kernel copies into it in two thirds of the time."""
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


@contextmanager
def open_to_read(path: Path) -> Iterator[tuple[int, int]]:
    """Yield descriptor and size of a file of a source; raise EnvironmentFault where it cannot be opened or read."""
    descriptor = -1
    try:
        with without_path("a file of the source"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            yield descriptor, os.fstat(descriptor).st_size
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def without_path(what: str) -> Iterator[None]:
    """Raise EnvironmentFault for an OSError, whose message quotes a path: the path may name a patient."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            f"cannot read {what} ({error.strerror}): check its permissions and that it is still mounted"
        ) from None
