"""Stop of a command, by Ctrl-C, SIGTERM or the end of its terminal: one line, nothing left running, exit code 128 + N.

Nothing is unwound in a flow: the stores bear a kill at any moment, and unwinding Ray, Prefect and MLflow takes minutes.
The flow runs in a thread, so that the main thread, which alone gets signals, is free at any moment.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import FrameType
from typing import Any

import psutil

SERVER = "services.prefect.server_process"
"""Module of the Prefect server of the home."""
LINE = "stopped; what was done is kept: run the command again to go on"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LIMIT_S = 4.0
"""After it nothing is waited for; the next command does what is left."""


class Stopped(BaseException):
    """A signal that ends the command."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """End this process in good order where a signal ends the block."""
    # Whoever started this under nohup wants it to go on.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, _interrupt)
    try:
        yield
    except Stopped as stopped:
        end(stopped.number)
    finally:
        for number in heard:
            # All is done, and said.
            signal.signal(number, lambda number, _: os._exit(128 + number))


def run_in_thread(work: Callable[[], Any], cancel: Callable[[], None]) -> Any:
    """Return what `work` returns, in a thread; a signal meanwhile calls `cancel` and ends this process."""
    outcome = Future[Any]()

    def fulfil() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=copy_context().run, args=(fulfil,), daemon=True, name="flow").start()
    try:
        return outcome.result()
    except Stopped as stopped:
        end(stopped.number, cancel)


def end(number: int, cancel: Callable[[], None] | None = None) -> None:
    """Cancel, kill the processes that this one has started, print the line, and end this process."""
    terminal = os.dup(2)
    ours = threading.Lock()

    def leave() -> None:
        # Who comes second has nothing to do.
        with ours:
            for process in _own_processes():
                with suppress(psutil.Error):
                    process.kill()
            with suppress(OSError):
                # A progress bar may have hidden the cursor, and ^C stands at the start of the line.
                start = "\r\x1b[K\x1b[?25h" if os.isatty(terminal) else ""
                os.write(terminal, f"{start}{LINE}\n".encode())
            os._exit(128 + number)

    timer = threading.Timer(LIMIT_S, leave)
    timer.daemon = True
    timer.start()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    # The thread of the flow goes on until the end, and has nothing to say any more.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if cancel:
        # Stopped and not killed: a process of the sandbox that dies would make its file a bad one.
        for process in _own_processes():
            with suppress(psutil.Error):
                process.suspend()
        with suppress(Exception):
            cancel()
    leave()


def _own_processes() -> list[psutil.Process]:
    """Return what this process has started, but for the Prefect server of the home, which others may use."""
    family = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for process in list(family.values()):
        with suppress(psutil.Error):
            if SERVER in process.cmdline():
                for kept in (process, *process.children(recursive=True)):
                    family.pop(kept.pid, None)
    return list(family.values())


def _interrupt(number: int, frame: FrameType | None) -> None:
    # One is enough: those that follow would disturb the end, which comes within seconds.
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)
