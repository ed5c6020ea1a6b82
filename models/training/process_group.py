"""Group of processes that compute together, forked from one that has loaded torch."""

import multiprocessing
import os
import tempfile
import threading
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from imaging.errors import RadloopError

FORK = multiprocessing.get_context("fork")


class ProcessDiedError(RuntimeError):
    """A process that ended without an answer, or by an error that no message explains."""


def run_together(function: str, arguments: Iterable[Any], count: int, stop: Sequence[int] = ()) -> Any:
    """Call a function, "module:name", in `count` forks of this process; return what it returned in the first.

    It gets the rank, the count, the address of a file where the processes can meet (`init_method` of
    torch.distributed), and the arguments. Where one process fails all are ended: raises what it raised if that is a
    RadloopError, else ProcessDiedError, which is raised too where one of the file descriptors `stop` becomes readable.
    No process outlives this one, which should have no threads: a fork has only one.
    """
    with tempfile.TemporaryDirectory(prefix="radloop-group-") as folder:
        connections, processes = [], []
        try:
            for rank in range(count):
                connection, answer = FORK.Pipe(duplex=False)
                call = (function, rank, count, f"file://{folder}/meet", (*arguments,))
                process = FORK.Process(target=_member, args=(answer, *call))
                process.start()
                # Kept by this process alone, and by no later fork: then its death is seen at the other end.
                answer.close()
                processes.append(process)
                connections.append(connection)
            return _answers(connections, stop)[0]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _answers(connections: Sequence[Connection], stop: Sequence[int]) -> list[Any]:
    """Return the answer of each process; raise as soon as one of them has failed."""
    answers: dict[Connection, Any] = {}
    while missing := [one for one in connections if one not in answers]:
        for ready in wait([*missing, *stop]):
            if not isinstance(ready, Connection):
                raise ProcessDiedError("the process that asked for this has ended")
            try:
                answers[ready], error = ready.recv()
            except EOFError:
                rank = connections.index(ready)
                raise ProcessDiedError(
                    f"process {rank} of {len(connections)} was killed, most often by the system for lack of memory"
                ) from None
            if error is not None:
                raise error
    return [answers[one] for one in connections]


def _member(
    answer: Connection, function: str, rank: int, count: int, meet: str, arguments: tuple[Any, ...]
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer.send((called(function, rank, count, meet, *arguments), None))
    except RadloopError as error:
        answer.send((None, error))
    except Exception:
        answer.send((None, ProcessDiedError(f"process {rank} of {count} failed:\n{traceback.format_exc()}")))


def called(function: str, *arguments: Any, **named: Any) -> Any:
    """Call a function by its name, "module:name"."""
    module, name = function.split(":")
    return getattr(import_module(module), name)(*arguments, **named)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
