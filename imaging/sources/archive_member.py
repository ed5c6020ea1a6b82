"""Member of a zip or tar archive: its description, and the faults that both kinds of archive have in common."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault, EnvironmentFault

STEP_BYTES = 2**20
MTIME_LIMIT_NS = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member as the archive declares it.

    `position` is its number in a zip's central directory, or the offset of its data in an unpacked tar. `fault`, a
    reason and a detail, is the cause why it is never read.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    position: int
    fault: tuple[str, str] | None = None


class Members(Protocol):
    """Members of an open archive."""

    def list(self) -> Iterator[Member]:
        """Yield the members in their order, without their content; folders are left out."""
        ...

    def read(self, member: Member) -> bytes:
        """Return the content of a member; raise DataFault where it is not what was declared."""
        ...


def bomb_fault(inflated_bytes: int, packed_bytes: int) -> DataFault | None:
    """Return the fault of data that inflates beyond the limits; None within them.

    >>> bomb_fault(2**20, 1), bomb_fault(2**30, 2**23)
    (None, None)
    >>> bomb_fault(2**30, 2**20).reason
    'archive-bomb'
    """
    if inflated_bytes <= max(LIMITS.inflated_bytes, LIMITS.inflate_ratio * packed_bytes):
        return None
    limits = f"the limits are {LIMITS.inflated_bytes} and {LIMITS.inflate_ratio} times its size"
    return DataFault("archive-bomb", f"{packed_bytes} bytes inflate to {inflated_bytes} or more, {limits}")


def unreadable(path: Path, error: OSError) -> EnvironmentFault:
    """Return the fault of an archive that cannot be read from its disk."""
    return EnvironmentFault(
        f"cannot read {path.name} ({error.strerror}): check its permissions and that it is still mounted"
    )


def nanoseconds(seconds: float) -> int:
    """Return a member's time as a file's, 0 where it is not a valid time.

    >>> nanoseconds(1.5), nanoseconds(float("nan")), nanoseconds(1e300), nanoseconds(-3)
    (1500000000, 0, 0, 0)
    """
    if not math.isfinite(seconds) or not 0 <= seconds * 1e9 <= MTIME_LIMIT_NS:
        return 0
    # A whole number stays exact.
    return int(seconds) * 10**9 + int((seconds - int(seconds)) * 1e9)
