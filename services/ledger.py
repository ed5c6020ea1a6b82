"""Ledger: one line for every decision about the champion, and for every move by hand; lines are only ever added.

A line has `event`: "promoted", "kept" or MOVED_BY_HAND. `candidate` is the version that the line is about and
`champion` the champion before it; of a move by hand they are the versions after and before, None for no champion.
`training` names the data and the configuration of the candidate; lines of release 0.1.0 lack it. Events that a release
does not know change no champion; release 0.1.0 reads no line at all.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imaging.errors import EnvironmentFault
from imaging.store.durable_file import disk_faults
from services.settings import Settings

PROMOTED, KEPT, MOVED_BY_HAND = "promoted", "kept", "moved by hand"
LOCK_TIMEOUT_S = 120
NOTICE_S = 2

Line = Mapping[str, Any]


def ledger_path(settings: Settings, name: str) -> Path:
    """Return where the ledger of a model lies."""
    return settings.store_root / "ledger" / f"{name}.jsonl"


@contextmanager
def locked(settings: Settings, name: str) -> Iterator[Path]:
    """Let no other process move the champion of a model, or notice a move, while the block lasts; yield the ledger."""
    path = ledger_path(settings, name)
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=NOTICE_S)
    except Timeout:
        print(
            f"waiting for another process, which decides on the champion of {name}, at most {LOCK_TIMEOUT_S} s"
        )
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except Timeout:
            raise EnvironmentFault(
                f"another process has decided on the champion of {name} for {LOCK_TIMEOUT_S} s: end it if it hangs, "
                "and run again: what was trained is kept"
            ) from None
    try:
        yield path
    finally:
        lock.release()


def add(path: Path, entry: Line) -> None:
    """Add a line that is on the disk, whole, when this returns."""
    line = (json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + "\n").encode()
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                # Else the next line would be added to what a full disk took of this one.
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def entries(path: Path) -> list[dict[str, Any]]:
    """Return all lines, oldest first."""
    lines = path.read_text().splitlines() if path.exists() else []
    read = []
    for number, line in enumerate(lines, start=1):
        try:
            read.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise EnvironmentFault(
                f"line {number} of the ledger {path} is not whole ({error.msg}): mend or remove that line"
            ) from error
    return read


def champion_changes(lines: Sequence[Line]) -> list[Line]:
    """Return the lines after which the champion was another one, oldest first; each names it as `candidate`."""
    return [line for line in lines if line["event"] in (PROMOTED, MOVED_BY_HAND)]
