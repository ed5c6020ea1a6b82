"""Owns the sandbox: items go to worker processes and come back in order; what kills a worker costs one item."""

import os
import re
import select
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from imaging.errors import DataFault, EnvironmentFault
from imaging.sandbox.process import Answer, Job, Worker, WorkerLimits
from imaging.sandbox.wire import BadMessage, Message, pack
from imaging.sandbox.worker import ITEM_INTO

DEPTH = 4
"""Items that wait at one worker, so that it always has the next one."""
AHEAD = 128
"""Items per worker that may be begun and not yet handed on: so many quick ones are done beside a slow one."""
REASON = re.compile(r"[a-z][a-z-]{1,39}")
DETAIL_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Item:
    """What the function is called with: a JSON value, and bytes or the paths of files.

    The blobs of the answer come back with it; or the worker writes them to `into`, and they take no way through here.
    Such a file is whole, though not yet on the disk, once there is an answer; of an item that failed it may be half.
    """

    value: Mapping[str, Any]
    blobs: tuple[bytes | Path, ...] = ()
    into: Path | None = None

    def message(self) -> Message:
        """Return what a worker is told."""
        if self.into is None:
            return Message("item", dict(self.value), self.blobs)
        return Message(ITEM_INTO, dict(self.value), (self.into, *self.blobs))


class Pool:
    """Calls one function in processes of their own, with limits of memory and time.

    `function` is "package.module:name" of an `imaging.sandbox.worker.Function`; `setup` is its first argument in
    each call. Workers start when there are items for them, or all at `start`, and stay until the pool is closed.
    `bytes_ahead` bounds the bytes of items and answers that are held here at a time.
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
        self.size = workers or len(os.sched_getaffinity(0))
        self._order = {
            "function": function,
            "setup": dict(setup),
            "memory_mib": self.limits.memory_mib,
            "timeout_s": self.limits.timeout_s,
        }
        self._bytes_ahead = bytes_ahead
        self._workers: list[Worker] = []
        self._jobs: deque[Job] = deque()
        self._held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start(self) -> None:
        """Start all workers now: what they load takes a while, in which their parent may do something else."""
        while len(self._workers) < self.size:
            self._start()

    def end(self) -> None:
        """End the workers; where there are items again, others start."""
        self._end(self._workers)

    def map(self, items: Iterable[Item]) -> Generator[Answer | DataFault, None, None]:
        """Yield what became of each item, in their order, while later ones are worked on.

        DataFault: the function raised it, or the item crashed, hung, or needed too much memory. EnvironmentFault is
        raised: a worker cannot start, or the function says so. One call at a time; items are taken as needed.
        """
        if self._jobs:
            raise RuntimeError("this pool is still busy with the items of another call")
        waiting: Iterator[Item] | None = iter(items)
        try:
            while waiting or self._jobs:
                if pulled := waiting is not None and self._has_room():
                    waiting = self._pull(waiting)
                self._turn(wait=not pulled)
                while self._jobs and (outcome := self._jobs[0].outcome):
                    self._held_bytes -= self._jobs.popleft().held_bytes
                    yield outcome
        finally:
            self._jobs.clear()
            self._held_bytes = 0
            self._end([worker for worker in self._workers if worker.jobs])

    def _has_room(self) -> bool:
        """Whether another item may be taken: one always may, however large it is."""
        if not self._jobs:
            return True
        free = len(self._workers) < self.size or any(len(worker.jobs) < DEPTH for worker in self._workers)
        return free and len(self._jobs) < AHEAD * self.size and self._held_bytes < self._bytes_ahead

    def _pull(self, waiting: Iterator[Item]) -> Iterator[Item] | None:
        item = next(waiting, None)
        if item is None:
            return None
        try:
            packed = pack(item.message(), self.limits.message_bytes)
        except DataFault as fault:
            self._jobs.append(Job([], 0, fault))
            return waiting
        job = Job(packed, sum(part.nbytes for part in packed))
        self._held_bytes += job.held_bytes
        self._jobs.append(job)
        self._idlest().give(job)
        return waiting

    def _idlest(self) -> Worker:
        worker = min(self._workers, key=lambda worker: len(worker.jobs), default=None)
        if worker is None or (worker.jobs and len(self._workers) < self.size):
            worker = self._start()
        return worker

    def _start(self) -> Worker:
        worker = Worker(self._order, self.limits)
        self._workers.append(worker)
        return worker

    def _turn(self, wait: bool) -> None:
        """Send and receive what can be; `wait` until there is something, or until a worker is overdue."""
        numbers = {worker.connection.fileno(): worker for worker in self._workers}
        listened = self._listened()
        poll = select.poll()
        for number, worker in numbers.items():
            hear = select.POLLIN if worker in listened else 0
            poll.register(number, hear | (select.POLLOUT if worker.outbox else 0))
        deadline = min((worker.deadline() for worker in listened), default=0.0)
        patience_s = max(0.0, deadline - time.monotonic()) if wait else 0.0
        for number, events in poll.poll(min(patience_s, 3600.0) * 1000):
            self._serve(numbers[number], events)
        self._end_overdue(listened)

    def _end_overdue(self, listened: list[Worker]) -> None:
        now = time.monotonic()
        for worker in listened:
            if worker not in self._workers or worker.deadline() > now:
                continue
            if not worker.ready:
                raise worker.not_started()
            worker.end()
            self._bury(worker, worker.hung(), proven=True)

    def _listened(self) -> list[Worker]:
        """Return all workers; but when too much is held already, only the one that owes the next answer."""
        owing = [worker for worker in self._workers if self._jobs and self._jobs[0] in worker.jobs]
        return owing if owing and self._held_bytes >= self._bytes_ahead else list(self._workers)

    def _serve(self, worker: Worker, events: int) -> None:
        try:
            if events & select.POLLOUT:
                worker.send()
            if events & ~select.POLLOUT and (message := worker.receive()):
                self._accept(worker, message)
        except EOFError:
            if not worker.ready:
                raise worker.not_started() from None
            fault = worker.cause_of_death()
            self._bury(worker, fault, proven=fault.reason == "decoder-hung")
        except BadMessage:
            worker.end()
            self._bury(worker, DataFault("decoder-crashed", "the worker sent what is no message"))

    def _accept(self, worker: Worker, message: Message) -> None:
        if message.kind == "ready" and not worker.ready:
            worker.started()
        elif message.kind == "environment":
            raise EnvironmentFault(str(message.value))
        elif not worker.jobs:
            raise BadMessage
        else:
            self._conclude(worker, _outcome(message))

    def _conclude(self, worker: Worker, outcome: Answer | DataFault) -> None:
        short = isinstance(outcome, DataFault) and outcome.reason == "out-of-memory"
        if short and worker.answered:
            # What earlier items left behind counts too: only a new process says what this one needs.
            worker.end()
            self._bury(worker, outcome)
        else:
            self._finish(worker.jobs.popleft(), outcome)
            worker.answered += 1

    def _finish(self, job: Job, outcome: Answer | DataFault) -> None:
        held = sum(blob.nbytes for blob in outcome.blobs) if isinstance(outcome, Answer) else 0
        self._held_bytes += held - job.held_bytes
        job.packed, job.held_bytes, job.outcome = [], held, outcome

    def _bury(self, worker: Worker, fault: Answer | DataFault, proven: bool = False) -> None:
        """Give what a dead worker owed to a new one; its first item is at fault if nothing came before it.

        An earlier item may have spoiled the process, so the suspect is tried again where it comes first.
        """
        self._workers.remove(worker)
        if worker.jobs and (proven or not worker.answered):
            self._finish(worker.jobs.popleft(), fault)
        if worker.jobs:
            heir = self._start()
            for job in worker.jobs:
                heir.give(job)

    def _end(self, workers: list[Worker]) -> None:
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
