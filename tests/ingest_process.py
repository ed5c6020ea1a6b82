"""Night of an ingest in a process of its own: watched write by write, stopped at a call, without room, or killed.

The processes are forked from one that has imported everything, so that a night takes a fraction of a second.
"""

import errno
import io
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from imaging.dataset.ingest import journal
from imaging.errors import RadloopError
from infra.stack.processes import end
from services.ray import chunk_pool as chunks
from services.ray import ingest_worker
from tests.sandbox_pools import in_process

# What a night loads late would take most of its time. pyarrow loads pandas at the first array that it looks at.
LATE = ["pandas", "pyarrow.dataset", "scipy.sparse.csgraph", "scipy.spatial"]
LOADED = ["pytest", *LATE, "flows.ingest", "cli.dataset", "tests.ingest_process"]
FACTORY = "tests.ingest_process:open_worker"
KEY = "5e" * 32
"""One key for all homes, so that their rows can be compared."""
CALLS = ("open", "writev", "fsync", "fdatasync", "replace", "rename", "mkdir")
"""By these of `os`, and by FileIO, a night writes to a folder."""
GONE_LIMIT_S = 30.0
ANSWER, STEP, PAUSED = "answer", "step", "paused"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a night is passed.

    `in_process`: files are read without the sandbox, whose start takes most of a short night. `full_at`: the disk is
    full from this write on. `pause`: a function of tasks.ingest or imaging.dataset.ingest.pending_files by its name,
    and at which call of it to wait for `go`.
    """

    home: Path
    source: Path
    labels: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    chunk_files: int = 4
    ray_from: int = 10**9
    in_process: bool = True
    full_at: int | None = None
    pause: tuple[str, int] | None = None


class Night:
    """A night that has begun. It ends by itself, or is killed."""

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        self._mark = ("TMPDIR", str(plan.home / "tmp"))
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=_pass, args=(plan, theirs))
        self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0
        self.steps: list[str] = []
        self.answer: dict[str, Any] = {}

    def follow(self, steps: float = float("inf")) -> bool:
        """Wait until it has begun so many writes or is paused; say whether it was over before."""
        with suppress(EOFError, ConnectionResetError):
            while len(self.steps) < steps:
                kind, value = self._mine.recv()
                if kind == STEP:
                    self.steps.append(value)
                elif kind == ANSWER:
                    self.answer = value
                else:
                    return False
            return False
        self._process.join()
        return True

    def go(self) -> None:
        """Let it go on where it is paused."""
        self._mine.send(None)

    def over(self) -> dict[str, Any]:
        """Wait for the end; return outcome, `seconds` and `peak_bytes`, or the `error` and its `message`."""
        assert self.follow(), "the night is paused"
        assert self.answer, f"the night ended with status {self._process.exitcode}"
        return self.answer

    def kill(self, *, alone: bool = False) -> None:
        """Kill it, with all of its group or alone; see that nothing of it stays behind."""
        with suppress(ProcessLookupError):
            (os.kill if alone else os.killpg)(self.pid, signal.SIGKILL)
        self.follow()
        until = time.monotonic() + GONE_LIMIT_S
        while (left := _count(self._mark)) and time.monotonic() < until:
            time.sleep(0.02)
        if left:
            end([], self._mark, grace_s=0)
            raise AssertionError(f"{left} processes were left behind")


def passed(plan: Plan) -> dict[str, Any]:
    """Pass a night, and return its outcome, or the `error` and its `message`."""
    return Night(plan).over()


def begun(home: Path) -> list[list[str]]:
    """Return the files of each chunk that was ever begun in a home."""
    log = home / "begun"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@contextmanager
def open_worker(order: Mapping[str, Any]) -> Iterator[Callable[[Sequence[Any]], Any]]:
    """Do as a worker of ingest does, and write down which chunks are begun.

    One that finds a file called `die` in the home dies over its chunk, when the shard is written and the rows are not.
    """
    home = Path(order["home"])
    with ingest_worker.open_worker(order) as do:

        def noted(chunk: Sequence[Any]) -> Any:
            with (home / "begun").open("a") as log:
                log.write(json.dumps([work.file.name for work in chunk]) + "\n")
            with suppress(FileNotFoundError):
                (home / "die").unlink()
                journal.Journal.add = _die  # type: ignore[method-assign]
            return do(chunk)

        yield noted


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _count(mark: tuple[str, str]) -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            count += "=".join(mark).encode() in (process / "environ").read_bytes().split(b"\0")
    return count


def _pass(plan: Plan, parent: Connection) -> None:
    from imaging.dataset.ingest import pending_files
    from tasks import ingest

    os.setsid()
    (plan.home / "tmp").mkdir(exist_ok=True, parents=True)
    for name in [name for name in os.environ if name.startswith(("RADLOOP_", "RAY_", "PREFECT_"))]:
        del os.environ[name]
    # Its sockets have names, which must be short.
    os.environ.update(TMPDIR=str(plan.home / "tmp"), RAY_TMPDIR="/tmp", RADLOOP_KEY=KEY)
    os.environ.update(RADLOOP_HOME=str(plan.home), **plan.environment)
    ingest.run_chunks = partial(chunks.run_chunks, chunk_items=plan.chunk_files)
    ingest.RAY_FROM, ingest.FACTORY = plan.ray_from, FACTORY
    if plan.in_process:
        ingest_worker.Pool = NoSandbox  # type: ignore[misc, assignment]
    _watch(plan, parent)
    if plan.pause:
        _pause([ingest, pending_files], *plan.pause, parent)
    started = time.monotonic()
    try:
        answer = take_in(plan)
    except RadloopError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parent.send((ANSWER, answer | {"seconds": time.monotonic() - started, "peak_bytes": peak}))


def take_in(plan: Plan) -> dict[str, Any]:
    """Call the flow without Prefect's decorators."""
    from prefect import Task

    from flows import ingest
    from services.flow_requests import IngestRequest

    for name, value in vars(ingest).copy().items():
        if isinstance(value, Task):
            setattr(ingest, name, value.fn)
    ingest.create_markdown_artifact = lambda *_, **__: None  # type: ignore[assignment]
    ingest.progress = lambda *_: lambda *_: None
    with redirect_stdout(None):
        request = IngestRequest(source=str(plan.source), labels=str(plan.labels), dataset="d")
        return asdict(ingest.ingest.fn(request))


class NoSandbox:
    """Stand-in for a pool of the sandbox: works in this process."""

    def __init__(self, _: str, setup: Mapping[str, Any], **__: Any) -> None:
        self.map = in_process(setup)

    def start(self) -> None: ...

    def end(self) -> None: ...

    def __enter__(self) -> "NoSandbox":
        return self

    def __exit__(self, *_: object) -> None: ...


def _watch(plan: Plan, parent: Connection) -> None:
    """Report each write before it is done, and refuse those for which there is no room.

    These are writes below the home, or to a store elsewhere.
    """
    root = plan.environment.get("RADLOOP_STORE", str(plan.home))
    numbers, alone = count(), threading.Lock()

    def before(call: str, target: Any) -> None:
        path = str(Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else target)
        if path.startswith(root):
            with alone:
                parent.send((STEP, f"{call} {path[len(root) + 1 :]}"))
            if plan.full_at is not None and next(numbers) >= plan.full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def watched(call: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*given: Any, **named: Any) -> Any:
            if call != "open" or given[1] & (os.O_WRONLY | os.O_RDWR):
                # Of a rename the new name says more.
                before(call, given[1] if call in ("replace", "rename") else given[0])
            return do(*given, **named)

        return watched

    class WatchedIO(io.FileIO):
        def write(self, content: Any, /) -> int:
            before("write", self.fileno())
            return super().write(content)

    for call in CALLS:
        setattr(os, call, watched(call, getattr(os, call)))
    io.FileIO = WatchedIO  # type: ignore[misc]


def _pause(modules: Sequence[Any], name: str, call: int, parent: Connection) -> None:
    *owners, name = name.split(".")
    owner = next(module for module in modules if hasattr(module, [*owners, name][0]))
    for one in owners:
        owner = getattr(owner, one)
    do, numbers = getattr(owner, name), count(1)

    def paused(*given: Any, **named: Any) -> Any:
        if next(numbers) == call:
            parent.send((PAUSED, None))
            parent.recv()
        return do(*given, **named)

    setattr(owner, name, paused)
