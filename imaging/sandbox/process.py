"""Owns one worker process as its parent sees it: how it starts, what it owes, and why it ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from imaging.errors import DataFault, EnvironmentFault, UserFault
from imaging.sandbox.wire import Inbox, Message, pack, send_some
from imaging.sandbox.worker import MIB, OUT_OF_MEMORY

START_LIMIT_S = 120.0
GRACE_S = 5.0
"""A worker ends itself in time; this much later the parent does it, in case a decoder switched that off."""
EXIT_LIMIT_S = 5.0
KEPT = ("LD_LIBRARY_PATH", "TMPDIR")
"""All that a worker gets of the parent's environment: the rest holds passwords of stores and servers."""
ONE_THREAD = {
    # Each thread reserves address space, which is limited; and as many workers run as there are cores.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1"),
    **dict.fromkeys(("OPENCV_FOR_THREADS_NUM", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"),
    "MALLOC_ARENA_MAX": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What one file may cost: memory beyond what the worker has after its imports, and seconds of real time."""

    # With what a worker is after its imports, 1 GiB in all.
    memory_mib: int = 768
    timeout_s: float = 60

    def __post_init__(self) -> None:
        for name, value in (("memory_mib", self.memory_mib), ("timeout_s", self.timeout_s)):
            if not 0 < value < inf:
                raise UserFault(f"{name} is {value}: it must be above 0 and finite")

    @property
    def message_bytes(self) -> int:
        """The limit of a message's blobs: no more than a worker may hold."""
        return self.memory_mib * MIB


@dataclass(frozen=True, slots=True)
class Answer:
    """What the function returned for an item."""

    value: Any
    blobs: tuple[memoryview, ...] = ()


@dataclass(slots=True, eq=False)
class Job:
    """An item on its way: packed as long as it may have to be sent again, then with its outcome."""

    packed: list[memoryview]
    held_bytes: int
    outcome: Answer | DataFault | None = None


class Worker:
    """One process. Its jobs are answered in the order in which they were given."""

    def __init__(self, order: dict[str, Any], limits: WorkerLimits) -> None:
        """Start it; `order` is what it is told first."""
        self.limits = limits
        self.jobs: deque[Job] = deque()
        self.answered = 0
        self.ready = False
        self.since = time.monotonic()
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = _start(theirs)
        self.connection.setblocking(False)
        self._inbox = Inbox(limits.message_bytes)
        self.outbox = deque(pack(Message("order", order), limits.message_bytes))
        self.send()

    def give(self, job: Job) -> None:
        """Add to what it owes."""
        if not self.jobs and self.ready:
            self.since = time.monotonic()
        self.jobs.append(job)
        self.outbox.extend(job.packed)
        self.send()

    def send(self) -> None:
        """Send what it takes without waiting."""
        try:
            if self.outbox and send_some(self.connection, self.outbox):
                self.since = time.monotonic()
        except BlockingIOError:
            return
        except ConnectionError:
            # It is dead. What it said before is still to be read, and then its end.
            self.outbox.clear()

    def receive(self) -> Message | None:
        """Take what it said; see `Inbox.receive`."""
        self.since = time.monotonic()
        return self._inbox.receive(self.connection)

    def deadline(self) -> float:
        """Return when it must have said something, on the clock of `time.monotonic`."""
        if not self.ready:
            return self.since + START_LIMIT_S
        return self.since + self.limits.timeout_s + GRACE_S if self.jobs else inf

    def started(self) -> None:
        """Note that it is ready for items; from here on it says nothing but messages."""
        self.ready = True
        if self.process.stderr:
            self.process.stderr.close()

    def end(self, patience_s: float = 0.0) -> int | None:
        """End it, now or once it had time to end itself; return its own status, None if it had to be killed."""
        status = self._stop(patience_s)
        if self.process.stderr:
            self.process.stderr.close()
        return status

    def _stop(self, patience_s: float) -> int | None:
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(patience_s)
        self.process.kill()
        self.process.wait()
        return None

    def not_started(self) -> EnvironmentFault:
        """End it and say why it could not begin: nothing of a file has been read yet, so its words may be told."""
        late = time.monotonic() > self.deadline()
        status = self._stop(EXIT_LIMIT_S)
        said = self.process.stderr.read().decode(errors="replace").strip() if self.process.stderr else ""
        self.end()
        words = said.splitlines()[-1] if said else f"it ended with status {status}"
        if late:
            words = f"it was not ready within {START_LIMIT_S:g} s"
        return EnvironmentFault(f"a worker that decodes files cannot start: {words}; mend the installation")

    def cause_of_death(self) -> DataFault:
        """End it, and say what its end tells of the file that it was reading."""
        status = self.end(EXIT_LIMIT_S)
        if status is None:
            return DataFault("decoder-crashed", "the worker stopped talking")
        if status == -signal.SIGALRM:
            return self.hung()
        if status == OUT_OF_MEMORY:
            return DataFault("out-of-memory", f"more than a worker's {self.limits.memory_mib} MiB")
        if status == -signal.SIGKILL:
            # Not by us: the kernel does this when the machine, or the container, has no memory left.
            return DataFault("out-of-memory", "the worker was ended with signal 9")
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return DataFault("decoder-crashed", f"the worker ended with {how}")

    def hung(self) -> DataFault:
        """Say that there was no answer in time."""
        return DataFault("decoder-hung", f"no result within {self.limits.timeout_s:g} s")


def _start(connection: socket.socket) -> subprocess.Popen[bytes]:
    # -P: a file json.py in the folder where the run was started must not become the library of that name.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "imaging.sandbox.worker", str(connection.fileno())]
    paths = [entry or str(Path.cwd()) for entry in sys.path]
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    try:
        return subprocess.Popen(
            command,
            env={**kept, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(connection.fileno(),),
        )
    except OSError as error:
        raise EnvironmentFault(f"a worker that decodes files cannot start: {error.strerror}") from error
