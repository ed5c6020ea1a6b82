"""Record of the Prefect server of a home, and two locks beside it, which the kernel frees when their holder dies."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import psutil

from imaging.errors import EnvironmentFault

FILE = "prefect-server.json"
START_LOCK = "prefect-server.start.lock"
"""Held by who starts or ends the server, and by `radloop up`."""
USE_LOCK = "prefect-server.use.lock"
"""Shared by the commands that use the server, as long as they live; a server that ends for idleness holds it alone."""
SAME_START_S = 0.05
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class HomeServer:
    """Prefect server of a home: its process, its port, and a digest of the version and settings that it started with.

    `since_boot_s` is when the process began, in seconds since the machine did: unlike the time of the day it stays
    the same when the clock is set, and tells the process from a later one with its pid.
    """

    pid: int
    since_boot_s: float
    port: int
    made_with: str
    answered: bool = False

    @property
    def runs(self) -> bool:
        """Whether the process is there, and is the one that was started."""
        return abs(began(self.pid) - self.since_boot_s) < SAME_START_S

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


def began(pid: int) -> float:
    """Return when a process began, in seconds since the start of the machine; below 0 where it has ended."""
    with suppress(psutil.NoSuchProcess):
        # Read first: psutil counts the other time from what it has read here last.
        boot = psutil.boot_time()
        process = psutil.Process(pid)
        # A process that has ended stays as a zombie until its parent asks after it.
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.create_time() - boot
    return -1.0


def read_server(home: Path) -> HomeServer | None:
    """Return the server that was started last; None where there is no record, or one that cannot be read."""
    # What it says can be had anew: a damaged record is as good as none.
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        content = json.loads((home / FILE).read_text())
        return HomeServer(**{one.name: content[one.name] for one in fields(HomeServer)})
    return None


def write_server(home: Path, server: HomeServer) -> None:
    """Write the record, whole or not at all."""
    temporary = home / f"{FILE}.{os.getpid()}.tmp"
    # For its owner alone: the digest is of a database's address, which may contain a password.
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(asdict(server), indent=1))
    temporary.replace(home / FILE)


def record_answer(home: Path, server: HomeServer) -> None:
    """Record that a server has answered once, if it is still the one of the record."""
    if not server.answered and read_server(home) == server:
        write_server(home, replace(server, answered=True))


def take(path: Path, *, shared: bool = False) -> int | None:
    """Return the descriptor of a lock that was taken; None while another holds it.

    Raises EnvironmentFault where the home cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write {path} ({error.strerror}): give --home a folder that can be written, on a disk with space"
        ) from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def wait_for(path: Path, limit_s: float, *, shared: bool = False) -> int | None:
    """Return the descriptor of a lock as soon as it can be had; None after `limit_s`."""
    until = time.monotonic() + limit_s
    while (descriptor := take(path, shared=shared)) is None and time.monotonic() < until:
        time.sleep(POLL_S)
    return descriptor


def in_use(home: Path) -> bool:
    """Return whether a command that lives uses the server."""
    descriptor = take(home / USE_LOCK)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, limit_s: float) -> Iterator[bool]:
    """Hold a lock alone for a block; yields False where it could not be had within `limit_s`."""
    descriptor = wait_for(path, limit_s)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)
