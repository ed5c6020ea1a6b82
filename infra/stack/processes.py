"""Processes that outlive the command that started them: start, recognition later, and end with their children."""

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAME_START_S = 2.0
TAIL_LINES = 15


class StackError(Exception):
    """The stack could not be started or ended as asked; the message names the cause and the remedy."""


@dataclass(frozen=True, kw_only=True)
class OwnedProcess:
    """A process that was started here: its pid, when it began, and its log.

    It began so many seconds after the machine did, whose start has an identifier: the time of the day would be another
    one once the clock is set.
    """

    name: str
    pid: int
    boot: str
    since_boot_s: float
    log: str

    def process(self) -> psutil.Process | None:
        """Return the process while it runs; None when it ended, or when its pid belongs to another by now."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = self.boot == boot_id() and abs(since_boot_s(process) - self.since_boot_s) < SAME_START_S
            if same and _runs(process):
                return process
        return None


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> OwnedProcess:
    """Start a command in a session of its own, its output in `log`, with `environment` added to this process's."""
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
    began = since_boot_s(psutil.Process(process.pid))
    return OwnedProcess(name=name, pid=process.pid, boot=boot_id(), since_boot_s=began, log=str(log))


def boot_id() -> str:
    """Return the identifier of this start of the machine; empty where the system has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def since_boot_s(process: psutil.Process) -> float:
    """Return when a process began, in seconds since the start of the machine."""
    # Read first: psutil counts the other time from what it has read here last.
    boot = psutil.boot_time()
    return process.create_time() - boot


def end(owned: Iterable[OwnedProcess], mark: tuple[str, str], grace_s: float) -> int:
    """Terminate processes and their children, kill them after `grace_s` seconds, and return their number.

    `mark` is an environment variable and its value that only these processes have: by it the children of processes
    that ended themselves are recognised. No other process is touched, even if it has one of the pids by now.
    """
    family = _families([process for item in owned if (process := item.process())] + _orphans(mark))
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    # A server may have started another process before it ended.
    remaining = {*_wait(family, grace_s), *_families(_orphans(mark))}
    for process in remaining:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(remaining, grace_s)
    return len(family)


def tail(log: str | Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log."""
    with suppress(OSError):
        return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:])
    return ""


def _wait(processes: Iterable[psutil.Process], limit_s: float) -> list[psutil.Process]:
    until = time.monotonic() + limit_s
    left = [process for process in processes if _runs(process)]
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left = [process for process in left if _runs(process)]
    return left


def _runs(process: psutil.Process) -> bool:
    # A process that has ended stays as a zombie until its parent waits for it, and some parents never do.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _families(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    families: dict[psutil.Process, None] = {}
    for process in processes:
        families[process] = None
        with suppress(psutil.NoSuchProcess):
            families.update(dict.fromkeys(process.children(recursive=True)))
    return list(families)


def _orphans(mark: tuple[str, str]) -> list[psutil.Process]:
    name, value = mark
    orphans = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and process.pid != os.getpid():
                orphans.append(process)
    return orphans
