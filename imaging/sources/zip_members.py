"""Members of a zip file."""

import calendar
import copy
import errno
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from imaging.errors import DataFault, UserFault
from imaging.sources.archive_member import STEP_BYTES, Member, bomb_fault, nanoseconds, unreadable

ENCRYPTED = 0x1
"""Bit of the general purpose flags, APPNOTE 4.4.4."""

LOCAL_HEADER_BYTES = 30
"""Fixed part of the header before each member's data, APPNOTE 4.3.7."""

BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError)
DAMAGE = (None, errno.EINVAL)
"""errno of an OSError that is no fault of the disk: bz2 met wrong data, a member begins before the file."""


class ZipMembers:
    """Members that a zip's central directory lists; zip64 included."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def list(self) -> Iterator[Member]:
        """Yield the members in the order of the central directory."""
        overlapping = self._overlapping
        for position, info in enumerate(self._zip.infolist()):
            if info.is_dir():
                continue
            # Not `filename`, which was cut at the first NUL.
            yield Member(
                name=info.orig_filename,
                size_bytes=info.file_size,
                mtime_ns=_mtime_ns(info),
                position=position,
                fault=_fault(info, position in overlapping),
            )

    def read(self, member: Member) -> bytes:
        """Return a member's bytes, inflated at most one byte beyond its declared size; its checksum is checked."""
        info = copy.copy(self._zip.infolist()[member.position])
        # zipfile stops at the declared size, and does not report that there is more.
        info.file_size += 2 * STEP_BYTES
        try:
            data = self._inflate(info, member.size_bytes + 1)
        except BROKEN:
            raise DataFault("unreadable", "its header, data or checksum in the archive is wrong") from None
        except EOFError:
            raise DataFault("truncated", "the archive ends within its data") from None
        except (NotImplementedError, RuntimeError):
            raise DataFault("unsupported", f"zip's compression method {info.compress_type}") from None
        except OSError as error:
            if error.errno in DAMAGE:
                raise DataFault("unreadable", "its data or place in the archive is wrong") from None
            raise unreadable(self.path, error) from None
        if len(data) > member.size_bytes:
            raise DataFault("archive-bomb", f"it declares {member.size_bytes} bytes and inflates to more")
        if len(data) < member.size_bytes:
            raise DataFault("truncated", f"it holds {len(data)} of {member.size_bytes} bytes")
        return data

    def _inflate(self, info: zipfile.ZipInfo, limit_bytes: int) -> bytes:
        parts, left = [], limit_bytes
        with self._zip.open(info) as file:
            # Only an attempt to read behind the end has the checksum checked.
            while left and (part := file.read(min(STEP_BYTES, left))):
                parts.append(part)
                left -= len(part)
        return b"".join(parts)

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (*BROKEN, EOFError, NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in DAMAGE:
                raise unreadable(self.path, error) from None
            raise UserFault(
                f"{self.path.name} is no zip file, or its end with the list of members is missing: copy it again"
            ) from None

    @cached_property
    def _overlapping(self) -> frozenset[int]:
        """Positions of members that share bytes with the next one: data stored once and inflated many times."""
        infos = self._zip.infolist()
        order = sorted(range(len(infos)), key=lambda position: infos[position].header_offset)
        return frozenset(
            position
            for position, following in pairwise(order)
            if infos[position].header_offset + LOCAL_HEADER_BYTES + infos[position].compress_size
            > infos[following].header_offset
        )


def _fault(info: zipfile.ZipInfo, overlaps: bool) -> tuple[str, str] | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "archive-link", "the member is a link or a device"
    if info.flag_bits & ENCRYPTED:
        return "archive-encrypted", "the member is encrypted"
    if overlaps:
        return "archive-bomb", "the member shares its bytes with another"
    if fault := bomb_fault(info.file_size, info.compress_size):
        return fault.reason, fault.detail
    return None


def _mtime_ns(info: zipfile.ZipInfo) -> int:
    # Zip knows no time zone; taken as UTC, it is the same on every machine.
    try:
        return nanoseconds(calendar.timegm((*info.date_time, 0, 0, 0)))
    except ValueError:
        return 0
