"""Main loop of a sandbox worker: calls one function on untrusted files, within limits of memory and time.

Started as `python -m imaging.sandbox.worker_loop DESCRIPTOR`, with the connection to its parent under that number. It
ends when the connection does.
"""

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn

from imaging.errors import DataFault, EnvironmentFault
from imaging.file_io import write_file
from imaging.sandbox.messages import Blob, Message, read_message, write_message

Function = Callable[
    [Mapping[str, Any], Mapping[str, Any], Sequence[bytes | Path]], tuple[Any, Sequence[Blob]]
]
"""Function that a worker calls: (setup, value, blobs) -> (value, blobs); values are JSON values."""

OUT_OF_MEMORY = 12
"""Exit status of a worker whose memory does not suffice for receiving an item."""
MIB = 1 << 20
LARGEST_FILE_BYTES = 8 << 30
"""The largest file that is mapped into memory: that of `imaging.dicom.limits`, which is not loaded here."""
ITEM_INTO = "item into"
"""Kind of an item whose first blob is the path of the file that the blobs of its answer are written to."""


def serve(connection: socket.socket) -> NoReturn:
    """Answer items until the parent closes the connection, which raises EOFError."""
    order = read_message(connection).value
    # pydicom would load it to download examples: a tenth of the time in which a worker starts.
    sys.modules.setdefault("requests", None)  # type: ignore[arg-type]
    function: Function = resolve_name(order["function"])
    # Imported modules stay: a search for garbage in all of them would delay a file by a tenth of a second.
    gc.collect()
    gc.freeze()
    budget = order["memory_mib"] * MIB
    _silence()
    limit_size(budget)
    write_message(connection, Message("ready", None), budget)
    while True:
        item = read_message(connection)
        # The kernel's timer runs whatever a decoder does, and also when the parent is gone.
        signal.setitimer(signal.ITIMER_REAL, order["timeout_s"])
        answer = _answer(function, order["setup"], item)
        del item
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(connection, answer, budget)
        del answer


def limit_size(budget: int) -> None:
    """Make each request for memory fail that is more than a budget beyond what this process has now.

    Linux does not enforce a limit on resident memory (RLIMIT_RSS). Limited are the data (RLIMIT_DATA), in which mapped
    files do not count, and the address space with room for the largest file: so the request fails, as MemoryError,
    before a page of it is touched.
    """
    try:
        size, *_, data, _ = map(int, Path("/proc/self/statm").read_text().split())
    except OSError:
        size = data = 0
    page = resource.getpagesize()
    for kind, limit_bytes in (
        (resource.RLIMIT_DATA, data * page + budget),
        (resource.RLIMIT_AS, size * page + budget + LARGEST_FILE_BYTES),
    ):
        _, hard = resource.getrlimit(kind)
        least = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(kind, (least, least))


def _answer(function: Function, setup: Mapping[str, Any], item: Message) -> Message:
    try:
        into, given = (item.blobs[0], item.blobs[1:]) if item.kind == ITEM_INTO else (None, item.blobs)
        value, blobs = function(setup, item.value, given)  # type: ignore[arg-type]
        if isinstance(into, Path) and blobs:
            _write(into, blobs)
            blobs = ()
        return Message("answer", value, blobs)
    except Exception as error:
        return _fault(error)


def _write(path: Path, blobs: Sequence[Blob]) -> None:
    """Write a file without syncing it; the parent does that."""
    try:
        write_file(path, blobs)
    except OSError as error:
        # The file that is read is not the cause. The message of an OSError quotes a path.
        raise EnvironmentFault(
            f"a worker cannot write ({error.strerror}): make room or give write access, and run again"
        ) from None


def _send(connection: socket.socket, answer: Message, limit_bytes: int) -> None:
    try:
        write_message(connection, answer, limit_bytes)
    except OSError:
        raise EOFError from None
    except Exception as error:
        # The answer could not be packed, so nothing of it was sent.
        write_message(connection, _fault(error), limit_bytes)


def _fault(error: Exception) -> Message:
    match error:
        case DataFault():
            return Message("fault", [error.reason, error.detail])
        case EnvironmentFault():
            return Message("environment", str(error))
        case MemoryError():
            return Message("fault", ["out-of-memory", "reading needs more memory than a worker may use"])
        case RecursionError():
            return Message("fault", ["too-deep", "the structure is nested too deeply"])
    # Only its class: the message may quote the file.
    return Message("fault", ["unreadable", f"reading ended with {type(error).__name__}"])


def _silence() -> None:
    """Discard what a decoder prints: it may quote the file."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _prepare_process() -> None:
    """Write no core dump, be the first process that the kernel ends when memory is short, and ignore interrupts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A signal to all processes ends the parent, and this one follows; see `worker_process` for Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # (Not PR_SET_PDEATHSIG: that follows the parent's thread, not the parent.)
    try:
        Path("/proc/self/oom_score_adj").write_text("800")
    except OSError:
        return


def main(descriptor: int) -> None:
    """Serve, then end at once, without the exit handlers that a decoder may have registered."""
    _prepare_process()
    status = 0
    try:
        with socket.socket(fileno=descriptor) as connection:
            serve(connection)
    except MemoryError:
        status = OUT_OF_MEMORY
    except (EOFError, BrokenPipeError, ConnectionError):
        pass
    os._exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]))
