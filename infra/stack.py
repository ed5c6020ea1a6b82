"""Owns the one-machine stack: the servers as processes of this machine, from `radloop up` to `radloop down`."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from infra.deployments import deploy, deployed
from infra.processes import Owned, StackError, choose_ports, end, start, tail
from infra.record import FILE, MARK, Stack, read_stack
from infra.runs import cancel_running, declare_lost
from infra.servers import POOL, PORTS, SERVERS, Server, ask, worker

Say = Callable[[str], None]
START_LIMIT_S = 240.0
POLL_S = 0.5
CANCEL_LIMIT_S = 60.0
GRACE_S = 5.0
RAY_PREFIX = "radloop-ray-"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What an `up` is asked for: ports (None for a free one), clients' environment, and the deployments' text."""

    ports: Mapping[str, int | None]
    environment: Mapping[str, str]
    deployments: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What can be seen of one process of the stack."""

    name: str
    pid: int
    runs: bool
    answers: bool
    log: str


def up(home: Path, wish: Wish, say: Say) -> Stack:
    """Start what is not up, deploy, and return the stack; on any failure everything started is ended again."""
    with _alone(home):
        old = read_stack(home)
        if old is not None and old.up:
            say("The stack is up already.")
            _deploy_anew(old, wish, say)
            return old
        if old is not None:
            say("An earlier stack is gone or incomplete: its rest is removed first.")
            _end(old)
        stack = _new(home, wish.ports)
        try:
            return _start(stack, wish, say)
        except BaseException:
            _end(read_stack(home) or stack)
            raise


def status(home: Path) -> list[Seen]:
    """Say for each process of the stack whether it runs and answers; nothing where there is no stack."""
    stack = read_stack(home)
    if stack is None:
        return []
    servers = {server.name: server for server in _servers(stack)}
    return [
        Seen(
            name=item.name,
            pid=item.pid,
            runs=item.process() is not None,
            answers=item.process() is not None and servers[item.name].answers(),
            log=item.log,
        )
        for item in stack.processes
    ]


def down(home: Path) -> int:
    """End exactly what `up` started, and return how many processes that was; 0 where nothing was up.

    A record left by a machine that was restarted names pids of others by now: those are left alone.
    """
    with _alone(home):
        stack = read_stack(home)
        return _end(stack) if stack else 0


def _new(home: Path, ports: Mapping[str, int | None]) -> Stack:
    chosen = choose_ports({**dict.fromkeys(PORTS), **ports})
    # Sockets lie in this folder, and the kernel takes no path of more than 107 characters.
    stack = Stack(
        home=home, mark=secrets.token_hex(8), ports=chosen, ray_temp=tempfile.mkdtemp(prefix=RAY_PREFIX)
    )
    stack.logs.mkdir(parents=True, exist_ok=True)
    _write_token(stack.token_file)
    return stack


def _write_token(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _start(stack: Stack, wish: Wish, say: Say) -> Stack:
    environment = {**wish.environment, **_clients(stack), MARK: stack.mark}
    servers = [make(stack) for make in SERVERS]
    say(f"Starting {', '.join(server.name for server in servers)}; logs are in {stack.logs}")
    stack = stack.joined_by(*(_launch(server, stack, environment) for server in servers))
    _wait(servers, stack, say)
    ask(f"{stack.addresses['prefect']}/api/work_pools/", {"name": POOL, "type": "process"})
    if lost := declare_lost(stack.addresses["prefect"]):
        say(f"{lost} runs had not ended when the stack did: they count as crashed")
    hand = worker(stack)
    stack = stack.joined_by(_launch(hand, stack, environment))
    say("Deploying the flows, and starting a worker")
    deploy(wish.deployments, stack.home, {**os.environ, **environment})
    _wait([hand], stack, say)
    return replace(stack, ready=True).written()


def _deploy_anew(stack: Stack, wish: Wish, say: Say) -> None:
    # Only what has changed: deploying would wake schedules that a person has paused.
    if wish.deployments != deployed(stack.home):
        say("Deploying the flows with their new parameters")
        deploy(wish.deployments, stack.home, {**os.environ, **wish.environment, **_clients(stack)})


def _launch(server: Server, stack: Stack, environment: Mapping[str, str]) -> Owned:
    log = stack.logs / f"{server.name}.log"
    return start(server.name, server.command, {**environment, **server.environment}, log)


def _wait(servers: Iterable[Server], stack: Stack, say: Say) -> None:
    started = time.monotonic()
    silent = {server.name: server for server in servers}
    processes = {item.name: item for item in stack.processes}
    while silent:
        for name, server in list(silent.items()):
            if processes[name].process() is None:
                raise StackError(_cause(f"{name} ended while it was starting", processes[name]))
            if server.answers():
                del silent[name]
                still = f"; still waiting for {', '.join(silent)}" if silent else ""
                say(f"{name} answers after {time.time() - processes[name].created:.0f} s{still}")
        if silent and time.monotonic() - started > START_LIMIT_S:
            name = next(iter(silent))
            raise StackError(_cause(f"{name} does not answer after {START_LIMIT_S:.0f} s", processes[name]))
        time.sleep(POLL_S if silent else 0)


def _end(stack: Stack) -> int:
    if stack.up:
        cancel_running(stack.addresses["prefect"], CANCEL_LIMIT_S)
    # Ray would take its time to end, and none of the servers has anything to save.
    ended = end(stack.processes, (MARK, stack.mark), GRACE_S)
    if Path(stack.ray_temp).name.startswith(RAY_PREFIX):
        shutil.rmtree(stack.ray_temp, ignore_errors=True)
    (stack.home / FILE).unlink(missing_ok=True)
    return ended


def _servers(stack: Stack) -> Sequence[Server]:
    return [make(stack) for make in (*SERVERS, worker)]


def _clients(stack: Stack) -> dict[str, str]:
    return {name: value for group in stack.clients for name, value in group.items()}


def _cause(what: str, process: Owned) -> str:
    return f"{what}, see {process.log}:\n{tail(process.log)}"


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "stack.lock", timeout=0):
            yield
    except Timeout as error:
        raise StackError(
            f"another `radloop up` or `radloop down` works on {home}: wait for its end"
        ) from error
