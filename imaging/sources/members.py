"""Owns what zip and tar have in common: how a member is described, and when inflating it goes too far."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault

STEP_BYTES = 2**20
MTIME_LIMIT_NS = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member as the archive declares it; `place` finds it again, `fault` says why it is never read."""

    name: str
    size_bytes: int
    mtime_ns: int
    place: int
    fault: tuple[str, str] | None = None


class Members(Protocol):
    """What an archive holds."""

    def list(self) -> Iterator[Member]:
        """Yield the members in their order, without their content; folders are left out."""
        ...

    def read(self, member: Member) -> bytes:
        """Return the content of a member; raise DataFault where it is not what was declared."""
        ...


def is_bomb(inflated_bytes: int, packed_bytes: int) -> bool:
    """Say whether this much may not come out of so little; small things may shrink as they like.

    >>> is_bomb(2**20, 1), is_bomb(2**30, 2**20), is_bomb(2**30, 2**23)
    (False, True, False)
    """
    return inflated_bytes > LIMITS.inflated_bytes and inflated_bytes > LIMITS.inflate_ratio * packed_bytes


def bomb(inflated_bytes: int, packed_bytes: int) -> DataFault:
    """Return the fault of a member or an archive that inflates too far."""
    limits = f"the limits are {LIMITS.inflated_bytes} and {LIMITS.inflate_ratio} times its size"
    return DataFault("archive-bomb", f"{packed_bytes} bytes inflate to {inflated_bytes} or more, {limits}")


def nanoseconds(seconds: float) -> int:
    """Return a member's time as a file's, 0 where it is none.

    >>> nanoseconds(1.5), nanoseconds(float("nan")), nanoseconds(1e300), nanoseconds(-3)
    (1500000000, 0, 0, 0)
    """
    if not math.isfinite(seconds) or not 0 <= seconds * 1e9 <= MTIME_LIMIT_NS:
        return 0
    # A whole number stays exact.
    return int(seconds) * 10**9 + int((seconds - int(seconds)) * 1e9)
