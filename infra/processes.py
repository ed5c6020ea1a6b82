"""Owns processes that outlive the command that started them: start, recognise again, end with all they started."""

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAME_START_S = 2.0
TAIL_LINES = 15


class StackError(Exception):
    """The stack could not be started or ended as asked; the message names the cause and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A process that was started here: its pid, when the kernel created it (seconds since 1970), and its log."""

    name: str
    pid: int
    created: float
    log: str

    def process(self) -> psutil.Process | None:
        """Return the process while it runs; None when it ended, or when its pid belongs to another by now."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            # The kernel keeps the time as an offset, which moves a little when the clock is set.
            if abs(process.create_time() - self.created) < SAME_START_S and _runs(process):
                return process
        return None


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Owned:
    """Start a command in a session of its own; what it says goes to `log`, and `environment` joins this one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Owned(name=name, pid=process.pid, created=psutil.Process(process.pid).create_time(), log=str(log))


def end(owned: Iterable[Owned], mark: tuple[str, str], grace_s: float) -> int:
    """End processes and all they started, politely and then firmly; return how many there were.

    `mark` is an environment variable and its value, given to these alone: it finds what was left behind by
    those that have died themselves. Nothing else is touched, whoever has the pids by now.
    """
    family = _families([process for item in owned if (process := item.process())] + _orphans(mark))
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    # A server may have started another process while it was asked to end.
    stubborn = {*_wait(family, grace_s), *_families(_orphans(mark))}
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(stubborn, grace_s)
    return len(family)


def tail(log: str | Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log."""
    with suppress(OSError):
        return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:])
    return ""


def choose_ports(wanted: Mapping[str, int | None]) -> dict[str, int]:
    """Return a port of the loopback interface for each name: the one asked for, or a free one.

    Raises StackError when a port that was asked for is taken.
    """
    chosen = {}
    # All are held until the last is known, so that no two are the same.
    with ExitStack() as held:
        for name, port in wanted.items():
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port or 0))
            except OSError as error:
                raise StackError(
                    f"port {port} for {name} cannot be had ({error.strerror}): give another, or none for a free one"
                ) from error
            chosen[name] = listener.getsockname()[1]
    return chosen


def _wait(processes: Iterable[psutil.Process], limit_s: float) -> list[psutil.Process]:
    until = time.monotonic() + limit_s
    left = [process for process in processes if _runs(process)]
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left = [process for process in left if _runs(process)]
    return left


def _runs(process: psutil.Process) -> bool:
    # One that has ended stays as a zombie until its parent asks after it, and some never do.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _families(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found: dict[psutil.Process, None] = {}
    for process in processes:
        found[process] = None
        with suppress(psutil.NoSuchProcess):
            found.update(dict.fromkeys(process.children(recursive=True)))
    return list(found)


def _orphans(mark: tuple[str, str]) -> list[psutil.Process]:
    name, value = mark
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and process.pid != os.getpid():
                found.append(process)
    return found
