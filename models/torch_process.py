"""Process that has loaded torch, for one that need not: it trains and exports, and forks what trains together.

To load torch takes 2 s of a core, in each process that does; a fork of one that has done so takes milliseconds. It has
a session of its own, so that a Ctrl-C in the terminal reaches only the process that asks it, and it ends with that one.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from imaging import errors
from imaging.errors import RadloopError
from models.training.process_group import ProcessDiedError, called, run_together

STDIN, STDOUT, STDERR = 0, 1, 2
LOADED = ("models.training.launch", "torch._dynamo", "pyarrow.dataset", "models.portable.export")
"""Loaded before anything is forked. The first step of any optimizer of torch loads torch._dynamo, 2 s of a core."""
TAIL_BYTES = 2000
"""So much of its standard error is quoted where it died."""


class TorchProcess:
    """A process, which loads torch as soon as this object is made; one call at a time."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it is as long there as the process)
        paths = [path or str(Path.cwd()) for path in sys.path]
        code = f"import sys; sys.path[:] = {paths}; from {__name__} import main; main()"
        self._process = subprocess.Popen(
            # -P: a file json.py in the folder where the run was started must not become the library of that name.
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def call(self, function: str, *, count: int = 0, **arguments: Any) -> Any:
        """Call a function, "module:name", with plain JSON; return what it returns, plain JSON too.

        With a `count`, so many forks call it together, see `run_together`. Raises the RadloopError that it raised,
        and ProcessDiedError for anything else. Whatever interrupts this process ends the other one.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                print(json.dumps([function, count, arguments]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BaseException:
            self.end()
            raise
        if not line:
            self.end()
            raise ProcessDiedError(f"the process that trains has ended: {self._error_tail()}")
        kind, value = json.loads(line)
        if kind == "result":
            return value
        raise getattr(errors, kind, ProcessDiedError)(*value)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, and with it what it has forked."""
        self._process.kill()
        self._process.wait()

    def _error_tail(self) -> str:
        self._errors.seek(max(self._errors.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
        written = self._errors.read().decode(errors="replace").strip()
        return written or f"status {self._process.returncode}, most often the system for lack of memory"


_running: list[TorchProcess] = []


def start_torch() -> None:
    """Start the process of a training now, so that it loads torch while this one does something else."""
    end_torch()
    _running.append(TorchProcess())


def torch_process() -> TorchProcess:
    """Return the process that was started last; it is started where none runs."""
    if not _running or not _running[-1].runs:
        start_torch()
    return _running[-1]


def end_torch() -> None:
    """End the process, where there is one."""
    while _running:
        _running.pop().end()


def main() -> None:
    """Answer calls until the other process ends."""
    answers = os.fdopen(os.dup(STDOUT), "w")
    # What a library prints is no answer.
    os.dup2(STDERR, STDOUT)
    for module in LOADED:
        import_module(module)
    for line in sys.stdin:
        function, count, arguments = json.loads(line)
        try:
            if count:
                value = run_together(function, arguments.values(), count, stop=[STDIN])
            else:
                value = called(function, **arguments)
            answer = ["result", value]
        except RadloopError as error:
            answer = [type(error).__name__, error.args]
        except Exception as error:
            text = str(error) if isinstance(error, ProcessDiedError) else traceback.format_exc()
            answer = ["ProcessDiedError", [text]]
        print(json.dumps(answer), file=answers, flush=True)
