"""Worker process of the sandbox as its parent sees it: its start, its unanswered jobs, and the reason of its end."""

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
from imaging.sandbox.messages import Inbox, Message, pack, send_some
from imaging.sandbox.worker_loop import MIB, OUT_OF_MEMORY

START_LIMIT_S = 120.0
GRACE_S = 5.0
"""A worker ends itself in time; this much later the parent does it, in case a decoder switched that off."""
EXIT_LIMIT_S = 5.0
INHERITED = ("LD_LIBRARY_PATH", "TMPDIR")
"""All that a worker gets of the parent's environment: the rest contains passwords of stores and servers."""
ONE_THREAD = {
    # Each thread reserves address space, which is limited; and as many workers run as there are cores.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1"),
    **dict.fromkeys(("OPENCV_FOR_THREADS_NUM", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"),
    "MALLOC_ARENA_MAX": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """Limits for one file: memory beyond what the worker has after its imports, and seconds of real time."""

    # Together with the worker after its imports, 1 GiB in all.
    memory_mib: int = 768
    timeout_s: float = 60

    def __post_init__(self) -> None:
        for name, value in (("memory_mib", self.memory_mib), ("timeout_s", self.timeout_s)):
            if not 0 < value < inf:
                raise UserFault(f"{name} is {value}: it must be above 0 and finite")

    @property
    def message_bytes(self) -> int:
        """The limit of a message's blobs: no more than the memory of a worker."""
        return self.memory_mib * MIB


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of the function for an item."""

    value: Any
    blobs: tuple[memoryview, ...] = ()


@dataclass(slots=True, eq=False)
class Job:
    """An item in work: packed as long as it may have to be sent again, then with its outcome."""

    packed: list[memoryview]
    size_bytes: int
    outcome: Answer | DataFault | None = None


class WorkerProcess:
    """One process and the connection to it. It answers its jobs in the order in which they were assigned."""

    def __init__(self, order: dict[str, Any], limits: WorkerLimits) -> None:
        """Start the process; `order` is the value of its first message."""
        self.limits = limits
        self.jobs: deque[Job] = deque()
        self.answered = 0
        self.ready = False
        self._last_activity = time.monotonic()
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = _start(theirs)
        self.connection.setblocking(False)
        self._inbox = Inbox(limits.message_bytes)
        self.outbox = deque(pack(Message("order", order), limits.message_bytes))
        self.send()

    def assign(self, job: Job) -> None:
        """Add a job, and send as much of it as the connection takes."""
        if not self.jobs and self.ready:
            self._last_activity = time.monotonic()
        self.jobs.append(job)
        self.outbox.extend(job.packed)
        self.send()

    def send(self) -> None:
        """Send what the connection takes without waiting."""
        try:
            if self.outbox and send_some(self.connection, self.outbox):
                self._last_activity = time.monotonic()
        except BlockingIOError:
            return
        except ConnectionError:
            # The process is dead. Its earlier answers are still to be read, and then its end.
            self.outbox.clear()

    def receive(self) -> Message | None:
        """Receive what has arrived; see `Inbox.receive`."""
        self._last_activity = time.monotonic()
        return self._inbox.receive(self.connection)

    def deadline(self) -> float:
        """Return the time by which the next message must arrive, on the clock of `time.monotonic`."""
        if not self.ready:
            return self._last_activity + START_LIMIT_S
        return self._last_activity + self.limits.timeout_s + GRACE_S if self.jobs else inf

    def mark_ready(self) -> None:
        """Note that the worker is ready for items; from here on it writes nothing to its standard error."""
        self.ready = True
        if self.process.stderr:
            self.process.stderr.close()

    def end(self, patience_s: float = 0.0) -> int | None:
        """End the process after at most `patience_s`; return its exit status, None where it had to be killed."""
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

    def start_failure(self) -> EnvironmentFault:
        """End a process that did not become ready, and return the fault with the last line of its standard error.

        No file has been read yet, so that line quotes no patient.
        """
        late = time.monotonic() > self.deadline()
        status = self._stop(EXIT_LIMIT_S)
        errors = self.process.stderr.read().decode(errors="replace").strip() if self.process.stderr else ""
        self.end()
        cause = errors.splitlines()[-1] if errors else f"it ended with status {status}"
        if late:
            cause = f"it was not ready within {START_LIMIT_S:g} s"
        return EnvironmentFault(f"a worker that decodes files cannot start: {cause}; mend the installation")

    def exit_fault(self) -> DataFault:
        """End the process, and return the fault of the file that it was reading, by its exit status."""
        status = self.end(EXIT_LIMIT_S)
        if status is None:
            return DataFault("decoder-crashed", "the worker stopped talking")
        if status == -signal.SIGALRM:
            return self.timeout_fault()
        if status == OUT_OF_MEMORY:
            return DataFault("out-of-memory", f"more than a worker's {self.limits.memory_mib} MiB")
        if status == -signal.SIGKILL:
            # Not by us: the kernel does this when the machine, or the container, has no memory left.
            return DataFault("out-of-memory", "the worker was ended with signal 9")
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return DataFault("decoder-crashed", f"the worker ended with {how}")

    def timeout_fault(self) -> DataFault:
        """Return the fault of a file without an answer in time."""
        return DataFault("decoder-hung", f"no result within {self.limits.timeout_s:g} s")


def _start(connection: socket.socket) -> subprocess.Popen[bytes]:
    # -P: a file json.py in the folder where the run was started must not become the library of that name.
    command = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        "-m",
        "imaging.sandbox.worker_loop",
        str(connection.fileno()),
    ]
    paths = [entry or str(Path.cwd()) for entry in sys.path]
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    try:
        return subprocess.Popen(
            command,
            env={**inherited, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(connection.fileno(),),
            # What ends the terminal's command ends this with it: if it ended first, its file would count as bad.
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentFault(f"a worker that decodes files cannot start: {error.strerror}") from error
