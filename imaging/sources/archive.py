"""Zip or tar archive of files as a source, read in place: nothing is ever extracted to the disk."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from imaging.errors import DataFault, UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.archive_member import Member, Members
from imaging.sources.patients import Patients
from imaging.sources.protocol import FETCHED_LIMIT_BYTES, Payload, SourceFile
from imaging.sources.tar_members import TarMembers
from imaging.sources.zip_members import ZipMembers

KINDS: Mapping[str, Callable[[Path], Members]] = {"zip": ZipMembers, "tar": TarMembers}

OUTSIDE = re.compile(r"(^|/)\.\.(/|$)|^/|\\|^[A-Za-z]:|\0|^$")
"""Names that lead out of the root on some system: parent, absolute, Windows' separators and drives; or empty."""

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
    """Members of a zip or tar file, each of which is read into memory alone."""

    def __init__(self, kind: str, path: str | Path, patients: Patients = Patients()) -> None:  # noqa: B008 (frozen)
        self.kind = kind
        self.path = Path(path).resolve()
        self.patients = patients
        self._known: Mapping[str, Member] | None = None

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of CT in a soft-tissue window, or that of pictures where the table names pictures."""
        return self.patients.default_spec()

    def scan(self) -> Iterator[SourceFile]:
        """List the members in the order of the archive, also those that will be refused.

        Of equal names the second is listed with "#2". Where an archive ends too early or its listing is broken,
        the last entry stands for all that is missing.
        """
        return self.patients.checked(self._list())

    def fetch(self, file: SourceFile) -> Payload:
        """Read one member; in the order of the listing a compressed archive is inflated once."""
        return self.patients.payload(file, lambda: self._read(file.name))

    @cached_property
    def members(self) -> Members:
        """Members of the open archive."""
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
        counts, index = Counter[str](), dict[str, Member]()
        for member in self.members.list():
            name = unused_name(member.name, counts)
            index[name] = member
            yield SourceFile(name=name, size_bytes=member.size_bytes, mtime_ns=member.mtime_ns)
        # Kept, since listing a compressed tar inflates it.
        self._known = index

    @property
    def _index(self) -> Mapping[str, Member]:
        if self._known is None:
            list(self._list())
        return self._known or {}


def unused_name(wanted: str, counts: Counter[str]) -> str:
    """Return a name that is not among `counts`, and count it.

    >>> counts = Counter()
    >>> [unused_name(wanted, counts) for wanted in ("a", "b", "a", "a")]
    ['a', 'b', 'a#2', 'a#3']
    """
    name = wanted
    while counts[name]:
        counts[wanted] += 1
        name = f"{wanted}#{counts[wanted]}"
    counts[name] += 1
    return name


def check_member(member: Member) -> None:
    """Raise DataFault for a member that is refused by its description in the archive, before it is read."""
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
    """Return whether the first bytes are those of an archive; those of a DICOM file mean nothing (PS3.10 7.1).

    >>> is_archive("a", b"PK\\x03\\x04..."), is_archive("a", b"PK\\x03\\x04".ljust(128) + b"DICM")
    (True, False)
    """
    if data[128:132] == b"DICM" or name.lower().endswith(".nii.gz"):
        return False
    return data.startswith((*MAGIC, ZSTANDARD)) or data[USTAR] == b"ustar"
