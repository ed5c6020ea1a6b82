"""Start, status and end of the one-machine stack: `radloop up`, `radloop status` and `radloop down`."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from infra.stack.deployments import deploy, deployed, deployments_of
from infra.stack.flow_runs import cancel_running, declare_lost
from infra.stack.ports import choose_ports, keep_ports, last_ports
from infra.stack.processes import OwnedProcess, StackError, end, start, tail
from infra.stack.record import FILE, MARK, Stack, read_stack
from infra.stack.schedule_changes import NewerWish, reconcile
from infra.stack.servers import POOL, PORTS, SERVERS, Server, prefect_answer, repeated_answer, worker

Log = Callable[[str], None]
START_LIMIT_S = 240.0
POLL_S = 0.5
CANCEL_LIMIT_S = 60.0
GRACE_S = 5.0
RAY_PREFIX = "radloop-ray-"


@dataclass(frozen=True, kw_only=True)
class StackRequest:
    """Parameters of `up`: ports (None for the last one), the clients' environment, prefect.yaml and its schedules."""

    ports: Mapping[str, int | None]
    environment: Mapping[str, str]
    deployments: str
    schedules: NewerWish = field(default_factory=NewerWish)


@dataclass(frozen=True, kw_only=True)
class ProcessStatus:
    """Status of one process of the stack; `last_sign` is when it last wrote to its log, in this machine's zone."""

    name: str
    pid: int
    runs: bool
    answers: bool
    log: str
    last_sign: datetime | None = None

    @property
    def problem(self) -> str:
        """What is wrong, since when, and the remedy; empty where nothing is."""
        if self.runs and self.answers:
            return ""
        since = f", last sign of life {self.last_sign:%d %b %H:%M:%S %Z}" if self.last_sign else ""
        if not self.runs:
            return f"{self.name} has ended (process {self.pid}{since}): `radloop up` starts it again, see {self.log}"
        return (
            f"{self.name} runs but does not answer (process {self.pid}{since}): wait where it is starting or busy, "
            f"else `radloop down` and `radloop up`; see {self.log}"
        )


def up(home: Path, request: StackRequest, log: Log) -> Stack:
    """Start what is not up, deploy, and return the stack; on any failure everything started is ended again."""
    with _locked(home):
        old = read_stack(home)
        if old is not None and old.up:
            _check_ports(old, request.ports)
            log("The stack is up already.")
            _deploy(old, request, log)
            return old
        if old is not None:
            log("An earlier stack is gone or incomplete: its rest is removed first.")
            _end(old)
        stack = _new(home, request.ports, log)
        try:
            return _start(stack, request, log)
        except BaseException:
            _end(read_stack(home) or stack)
            raise


def status(home: Path) -> list[ProcessStatus]:
    """Return for each process of the stack whether it runs and answers; empty where there is no stack."""
    stack = read_stack(home)
    if stack is None:
        return []
    servers = {server.name: server for server in _servers(stack)}
    return [
        ProcessStatus(
            name=item.name,
            pid=item.pid,
            runs=item.process() is not None,
            answers=item.process() is not None and servers[item.name].answers(),
            log=item.log,
            last_sign=_last_write(item.log),
        )
        for item in stack.processes
    ]


def _last_write(log: str) -> datetime | None:
    with suppress(OSError):
        return datetime.fromtimestamp(Path(log).stat().st_mtime).astimezone()
    return None


def down(home: Path) -> int:
    """End exactly what `up` started, and return the number of processes; 0 where nothing was up.

    After a restart of the machine the pids in the record belong to other processes: these are left alone.
    """
    with _locked(home):
        stack = read_stack(home)
        return _end(stack) if stack else 0


def _check_ports(stack: Stack, asked: Mapping[str, int | None]) -> None:
    for name, port in asked.items():
        if port not in (None, stack.ports[name]):
            raise StackError(
                f"the stack is up already, {name} on port {stack.ports[name]}: `radloop down` first, and `radloop up "
                f"--{name}-port {port}` moves it"
            )


def _new(home: Path, ports: Mapping[str, int | None], log: Log) -> Stack:
    chosen = choose_ports({**dict.fromkeys(PORTS), **ports}, last_ports(home), log)
    # Consumers and pages know those that a person may choose.
    keep_ports(home, {name: chosen[name] for name in ports})
    # Ray makes sockets in this folder, and the kernel takes no path of more than 107 characters.
    stack = Stack(
        home=home, mark=secrets.token_hex(8), ports=chosen, ray_temp=tempfile.mkdtemp(prefix=RAY_PREFIX)
    )
    for folder in (stack.logs, stack.temporary):
        folder.mkdir(parents=True, exist_ok=True)
    _write_token(stack.token_file)
    return stack


def _write_token(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _start(stack: Stack, request: StackRequest, log: Log) -> Stack:
    environment = {**request.environment, **_client_environment(stack), MARK: stack.mark}
    servers = [make(stack) for make in SERVERS]
    log(f"Starting {', '.join(server.name for server in servers)}; logs are in {stack.logs}")
    # Written first: if this is killed while it starts them, the next `up` or `down` knows them by their mark.
    stack = stack.written()
    stack = stack.with_processes(*(_launch(server, stack, environment) for server in servers))
    _wait(servers, stack, log)
    prefect_answer(f"{stack.addresses['prefect']}/api/work_pools/", {"name": POOL, "type": "process"})
    if lost := declare_lost(stack.addresses["prefect"]):
        log(f"Runs that had not ended when the stack did: {lost}, counted as crashed")
    runner = worker(stack)
    stack = stack.with_processes(_launch(runner, stack, environment))
    log("Deploying the flows, and starting a worker")
    _deploy(stack, request, log, always=True)
    _wait([runner], stack, log)
    return replace(stack, ready=True).written()


def _deploy(stack: Stack, request: StackRequest, log: Log, *, always: bool = False) -> None:
    """Reconcile the schedules with what a person changed on the page, and deploy, always or where there is a change."""
    place, before = f"{stack.addresses['prefect']}/api/deployments", deployed(stack.home)
    wanted = deployments_of(request.deployments)
    names = {"deployments": {"name": {"any_": [one["name"] for one in wanted]}}}
    current = repeated_answer(f"{place}/filter", names)
    if current is None:
        raise StackError(
            f"the Prefect server at {stack.addresses['prefect']} does not list its deployments: run again"
        )
    plan = reconcile(wanted, deployments_of(before), current, request.schedules)
    for method, path, body in plan.requests:
        if repeated_answer(f"{place}/{path}", body, method) is None:
            raise StackError(f"the Prefect server refused {method} of {path}: `radloop up` tries again")
    for line in plan.lines:
        log(line)
    if always or request.deployments != before:
        if not always:
            log("Deploying the flows with their new parameters")
        given = {**request.environment, **_client_environment(stack), MARK: stack.mark}
        existing = {one["name"]: one["name"] in plan.paused for one in current}
        deploy(request.deployments, stack.home, {**os.environ, **given}, existing)


def _launch(server: Server, stack: Stack, environment: Mapping[str, str]) -> OwnedProcess:
    log_file = stack.logs / f"{server.name}.log"
    return start(server.name, server.command, {**environment, **server.environment}, log_file)


def _wait(servers: Iterable[Server], stack: Stack, log: Log) -> None:
    started = time.monotonic()
    waiting = {server.name: server for server in servers}
    processes = {item.name: item for item in stack.processes}
    while waiting:
        for name, server in list(waiting.items()):
            if processes[name].process() is None:
                raise StackError(_cause(f"{name} ended while it was starting", processes[name]))
            if server.answers():
                del waiting[name]
                still = f"; still waiting for {', '.join(waiting)}" if waiting else ""
                log(f"{name} answers after {time.monotonic() - started:.0f} s{still}")
        if waiting and time.monotonic() - started > START_LIMIT_S:
            name = next(iter(waiting))
            raise StackError(_cause(f"{name} does not answer after {START_LIMIT_S:.0f} s", processes[name]))
        time.sleep(POLL_S if waiting else 0)


def _end(stack: Stack) -> int:
    if stack.up:
        cancel_running(stack.addresses["prefect"], CANCEL_LIMIT_S)
    # Ray ends slowly, and none of the servers has anything to save.
    ended = end(stack.processes, (MARK, stack.mark), GRACE_S)
    if Path(stack.ray_temp).name.startswith(RAY_PREFIX):
        shutil.rmtree(stack.ray_temp, ignore_errors=True)
    (stack.home / FILE).unlink(missing_ok=True)
    return ended


def _servers(stack: Stack) -> Sequence[Server]:
    return [make(stack) for make in (*SERVERS, worker)]


def _client_environment(stack: Stack) -> dict[str, str]:
    return {name: value for group in stack.clients for name, value in group.items()}


def _cause(what: str, process: OwnedProcess) -> str:
    return f"{what}, see {process.log}:\n{tail(process.log)}"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    lock = FileLock(home / "stack.lock", timeout=0)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StackError(
            f"another `radloop up` or `radloop down` works on {home}: wait for its end"
        ) from error
    except OSError as error:
        raise StackError(
            f"cannot write {home} ({error.strerror}): make its disk writable, or give --home another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
