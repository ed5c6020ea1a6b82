"""Pool of sandbox processes that call a function on items in order; a crash costs only the item that caused it."""

import re
import select
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from imaging.cores import available_cores
from imaging.errors import DataFault, EnvironmentFault
from imaging.sandbox.messages import BadMessage, Message, pack
from imaging.sandbox.worker_loop import ITEM_INTO
from imaging.sandbox.worker_process import Answer, Job, WorkerLimits, WorkerProcess

DEPTH = 4
"""Items queued at one worker, so that it never waits for the next one."""
AHEAD = 128
"""Items per worker that may be begun and not yet yielded: so many quick ones are done beside a slow one."""
REASON = re.compile(r"[a-z][a-z-]{1,39}")
DETAIL_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Item:
    """Arguments of one call: a JSON value, and blobs, which are bytes or paths of files that the worker opens.

    The worker sends the blobs of its answer back, or writes them to the file `into`. After an answer that file is
    complete, but not yet synced to the disk; after a fault it may be incomplete.
    """

    value: Mapping[str, Any]
    blobs: tuple[bytes | Path, ...] = ()
    into: Path | None = None

    def message(self) -> Message:
        """Return the message that a worker gets."""
        if self.into is None:
            return Message("item", dict(self.value), self.blobs)
        return Message(ITEM_INTO, dict(self.value), (self.into, *self.blobs))


class Pool:
    """Worker processes that call one function, with limits of memory and time.

    `function` is "package.module:name" of an `imaging.sandbox.worker_loop.Function`; `setup` is its first argument in
    each call. Workers start when there are items for them, or all at `start`, and stay until the pool is closed.
    `bytes_ahead` bounds the bytes of items and answers that this process keeps at a time.
    """

    def __init__(
        self,
        function: str,
        setup: Mapping[str, Any],
        workers: int | None = None,
        limits: WorkerLimits | None = None,
        bytes_ahead: int = 256 << 20,
    ) -> None:
        self.limits = limits or WorkerLimits()
        self.size = workers or available_cores()
        self._order = {  # first message to each worker
            "function": function,
            "setup": dict(setup),
            "memory_mib": self.limits.memory_mib,
            "timeout_s": self.limits.timeout_s,
        }
        self._bytes_ahead = bytes_ahead
        self._workers: list[WorkerProcess] = []
        self._jobs: deque[Job] = deque()
        self._kept_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start all workers now, so that they load their modules while the caller does something else."""
        while len(self._workers) < self.size:
            self._start()

    def end(self) -> None:
        """End the workers; new ones start if there are items again."""
        self._end(self._workers)

    def map(self, items: Iterable[Item]) -> Generator[Answer | DataFault, None, None]:
        """Yield the outcome of each item, in their order, while later ones are worked on.

        A DataFault is yielded where the function raised it, or the item crashed, hung or needed too much memory.
        EnvironmentFault is raised where a worker cannot start or the function raised it. One call at a time; items
        are taken as needed.
        """
        if self._jobs:
            raise RuntimeError("this pool is still busy with the items of another call")
        waiting: Iterator[Item] | None = iter(items)
        try:
            while waiting or self._jobs:
                if pulled := waiting is not None and self._has_room():
                    waiting = self._pull(waiting)
                self._exchange(wait=not pulled)
                while self._jobs and (outcome := self._jobs[0].outcome):
                    self._kept_bytes -= self._jobs.popleft().size_bytes
                    yield outcome
        finally:
            self._jobs.clear()
            self._kept_bytes = 0
            self._end([worker for worker in self._workers if worker.jobs])

    def _has_room(self) -> bool:
        """Return whether another item may be taken; the first always may, however large it is."""
        if not self._jobs:
            return True
        free = len(self._workers) < self.size or any(len(worker.jobs) < DEPTH for worker in self._workers)
        return free and len(self._jobs) < AHEAD * self.size and self._kept_bytes < self._bytes_ahead

    def _pull(self, waiting: Iterator[Item]) -> Iterator[Item] | None:
        """Send the next item to a worker; return the iterator, None at its end."""
        item = next(waiting, None)
        if item is None:
            return None
        try:
            packed = pack(item.message(), self.limits.message_bytes)
        except DataFault as fault:
            self._jobs.append(Job([], 0, fault))
            return waiting
        job = Job(packed, sum(part.nbytes for part in packed))
        self._kept_bytes += job.size_bytes
        self._jobs.append(job)
        self._least_busy().assign(job)
        return waiting

    def _least_busy(self) -> WorkerProcess:
        worker = min(self._workers, key=lambda worker: len(worker.jobs), default=None)
        if worker is None or (worker.jobs and len(self._workers) < self.size):
            worker = self._start()
        return worker

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._order, self.limits)
        self._workers.append(worker)
        return worker

    def _exchange(self, wait: bool) -> None:
        """Send and receive what is ready; `wait` until something is, or until a worker is overdue."""
        numbers = {worker.connection.fileno(): worker for worker in self._workers}
        readable = self._readable()
        poll = select.poll()
        for number, worker in numbers.items():
            read = select.POLLIN if worker in readable else 0
            poll.register(number, read | (select.POLLOUT if worker.outbox else 0))
        deadline = min((worker.deadline() for worker in readable), default=0.0)
        patience_s = max(0.0, deadline - time.monotonic()) if wait else 0.0
        for number, events in poll.poll(min(patience_s, 3600.0) * 1000):
            self._serve(numbers[number], events)
        self._end_overdue(readable)

    def _end_overdue(self, workers: list[WorkerProcess]) -> None:
        now = time.monotonic()
        for worker in workers:
            if worker not in self._workers or worker.deadline() > now:
                continue
            if not worker.ready:
                raise worker.start_failure()
            worker.end()
            self._replace(worker, worker.timeout_fault(), proven=True)

    def _readable(self) -> list[WorkerProcess]:
        """Return the workers to read from: all, or at the limit of bytes only the one whose answer is next."""
        next_one = [worker for worker in self._workers if self._jobs and self._jobs[0] in worker.jobs]
        return next_one if next_one and self._kept_bytes >= self._bytes_ahead else list(self._workers)

    def _serve(self, worker: WorkerProcess, events: int) -> None:
        try:
            if events & select.POLLOUT:
                worker.send()
            if events & ~select.POLLOUT and (message := worker.receive()):
                self._accept(worker, message)
        except EOFError:
            if not worker.ready:
                raise worker.start_failure() from None
            fault = worker.exit_fault()
            self._replace(worker, fault, proven=fault.reason == "decoder-hung")
        except BadMessage:
            worker.end()
            self._replace(worker, DataFault("decoder-crashed", "the worker sent what is no message"))

    def _accept(self, worker: WorkerProcess, message: Message) -> None:
        if message.kind == "ready" and not worker.ready:
            worker.mark_ready()
        elif message.kind == "environment":
            raise EnvironmentFault(str(message.value))
        elif not worker.jobs:
            raise BadMessage
        else:
            self._conclude(worker, _outcome(message))

    def _conclude(self, worker: WorkerProcess, outcome: Answer | DataFault) -> None:
        out_of_memory = isinstance(outcome, DataFault) and outcome.reason == "out-of-memory"
        if out_of_memory and worker.answered:
            # Memory that earlier items left behind counts too: only a new process shows what this item needs.
            worker.end()
            self._replace(worker, outcome)
        else:
            self._finish(worker.jobs.popleft(), outcome)
            worker.answered += 1

    def _finish(self, job: Job, outcome: Answer | DataFault) -> None:
        size_bytes = sum(blob.nbytes for blob in outcome.blobs) if isinstance(outcome, Answer) else 0
        self._kept_bytes += size_bytes - job.size_bytes
        job.packed, job.size_bytes, job.outcome = [], size_bytes, outcome

    def _replace(self, worker: WorkerProcess, fault: Answer | DataFault, proven: bool = False) -> None:
        """Give the jobs of a dead worker to a new one.

        Its first job gets the fault if that is `proven`, or if the worker answered nothing before it. Otherwise an
        earlier item may have damaged the process, so the job is tried again as the first one of a new worker.
        """
        self._workers.remove(worker)
        if worker.jobs and (proven or not worker.answered):
            self._finish(worker.jobs.popleft(), fault)
        if worker.jobs:
            successor = self._start()
            for job in worker.jobs:
                successor.assign(job)

    def _end(self, workers: list[WorkerProcess]) -> None:
        for worker in list(workers):
            worker.end()
            self._workers.remove(worker)


def _outcome(message: Message) -> Answer | DataFault:
    match message.kind, message.value:
        case "answer", value:
            return Answer(value, message.blobs)  # type: ignore[arg-type]
        case "fault", [str(reason), str(detail)] if REASON.fullmatch(reason):
            return DataFault(reason, detail[:DETAIL_LENGTH])
    raise BadMessage
