"""Stack file HOME/stack.json, as clients read it: how to reach the servers that `radloop up` started."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from imaging.errors import UserFault

SAME_START_S = 2.0


def running_stack(home: Path) -> Sequence[Mapping[str, str]]:
    """Return the environment of the stack's clients, a group for each server; empty where it is not up.

    The first name of a group decides on all of it: who set that one has a server of his own.
    """
    path = home / "stack.json"
    try:
        content = json.loads(path.read_text())
        alive = content["ready"] and all(_runs(**item) for item in content["processes"])
        return content["clients"] if alive else ()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise UserFault(f"{path} is damaged ({error!r}): remove it; what it named may still run") from error


def _runs(
    pid: int, boot: str | None = None, since_boot_s: float = 0, created: float | None = None, **_: str
) -> bool:
    """Return whether a process runs that began so long after the machine; older records have the time of day."""
    if boot not in (None, boot_id()):
        return False
    try:
        # Read first: psutil counts the other time from what it has read here last.
        machine = psutil.boot_time()
        process = psutil.Process(pid)
        since = since_boot_s if created is None else created - machine
        # The pid of a stack that is gone may be another process's by now, or stay until its parent asks after it.
        return (
            abs(process.create_time() - machine - since) < SAME_START_S
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def boot_id() -> str:
    """Return the identifier of this start of the machine; empty where the system has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
