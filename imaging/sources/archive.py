"""Owns an archive of files as a source, read where it lies: nothing is ever extracted to the disk."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from imaging.errors import DataFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.members import Member, Members
from imaging.sources.names import FETCHED_LIMIT_BYTES, once
from imaging.sources.patients import Patients
from imaging.sources.protocol import Payload, SourceFile
from imaging.sources.tar_members import TarMembers
from imaging.sources.zip_members import ZipMembers

KINDS: Mapping[str, Callable[[Path], Members]] = MappingProxyType({"zip": ZipMembers, "tar": TarMembers})

OUTSIDE = re.compile(r"(^|/)\.\.(/|$)|^/|\\|^[A-Za-z]:|\0|^$")
"""Names that lead out of the root on some system: parent, absolute, Windows' separators and drives; and no name."""

NESTED = (
    ".zip",
    ".tar",
    ".gz",
    ".tgz",
    ".bz2",
    ".tbz2",
    ".xz",
    ".txz",
    ".7z",
    ".rar",
    ".zst",
    ".npz",
    ".jar",
)
MAGIC = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
)
ZSTANDARD, USTAR = b"\x28\xb5\x2f\xfd", slice(257, 262)


class Archive:
    """The members of a zip or tar file, each of which is read into memory alone."""

    def __init__(self, kind: str, path: str | Path, patients: Patients = Patients()) -> None:  # noqa: B008 (frozen)
        self.kind = kind
        self.path = Path(path).resolve()
        self.patients = patients
        self._known: Mapping[str, Member] | None = None

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of CT in a soft-tissue window, or that of pictures where the table names pictures."""
        return self.patients.default_spec()

    def scan(self) -> Iterator[SourceFile]:
        """List the members as they lie in the archive, also those that will be refused.

        Of equal names the second is listed with "#2". Where an archive ends too early or its listing is broken,
        the last entry stands for all that is missing.
        """
        return self.patients.check(self._list())

    def fetch(self, file: SourceFile) -> Payload:
        """Read one member; in the order of the listing a compressed archive is inflated once."""
        return self.patients.pack(file, lambda: self._read(file.name))

    @cached_property
    def members(self) -> Members:
        """The archive itself, open."""
        return KINDS[self.kind](self.path)

    def _read(self, name: str) -> bytes:
        member = self._index.get(name)
        if member is None:
            raise UserFault(f"{self.path.name} does not hold this member any more: scan the archive again")
        check_member(member)
        data = self.members.read(member)
        if is_archive(member.name, data):
            raise DataFault("nested-archive", "the member is an archive itself")
        return data

    def _list(self) -> Iterator[SourceFile]:
        name, index = once(), {}
        for member in self.members.list():
            told = name(member.name)
            index[told] = member
            yield SourceFile(name=told, size_bytes=member.size_bytes, mtime_ns=member.mtime_ns)
        # Kept, since listing a compressed tar inflates it.
        self._known = index

    @property
    def _index(self) -> Mapping[str, Member]:
        if self._known is None:
            list(self._list())
        return self._known or {}


def check_member(member: Member) -> None:
    """Raise DataFault for a member that is refused by what the archive declares of it, before it is read."""
    if OUTSIDE.search(member.name):
        raise DataFault("archive-escape", "the member's name leads out of the archive")
    if member.fault:
        raise DataFault(*member.fault)
    if member.name.lower().endswith(NESTED) and not member.name.lower().endswith(".nii.gz"):
        raise DataFault("nested-archive", "the member's name is that of an archive")
    if member.size_bytes > FETCHED_LIMIT_BYTES:
        raise DataFault(
            "too-large", f"the member's size is {member.size_bytes} bytes, the limit is {FETCHED_LIMIT_BYTES}"
        )


def is_archive(name: str, data: bytes) -> bool:
    """Say whether the first bytes are those of an archive; what they are in DICOM nobody may care (PS3.10 7.1).

    >>> is_archive("a", b"PK\\x03\\x04..."), is_archive("a", b"PK\\x03\\x04".ljust(128) + b"DICM")
    (True, False)
    """
    if data[128:132] == b"DICM" or name.lower().endswith(".nii.gz"):
        return False
    return data.startswith((*MAGIC, ZSTANDARD)) or data[USTAR] == b"ustar"
