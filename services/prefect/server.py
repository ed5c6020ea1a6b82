"""Prefect server of the home: one process that the first command starts and the next ones use, until it is idle.

A command claims it first, loads what it needs meanwhile, and waits for its answer last. Prefect is not loaded here.
"""

import hashlib
import http.client
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imaging.errors import EnvironmentFault
from services.prefect.server_record import (
    POLL_S,
    START_LOCK,
    USE_LOCK,
    HomeServer,
    began,
    in_use,
    locked,
    read_server,
    record_answer,
    wait_for,
    write_server,
)
from services.settings import Settings, activate, authorization, environment_of_server, use_home_server

START_LIMIT_S = 180.0
"""A fresh database takes 5 to 10 s, and several times that on a slow disk."""
ANSWER_LIMIT_S = 60.0
"""Of a server that has answered before: it may be stopped, and the machine may be busy."""
PROBE_S = 2.0
LOCK_LIMIT_S = 300.0
"""A whole stack may be starting."""
NOTICE_S = 2.0
GRACE_S = 5.0
PORT_LIMIT_S = 5.0
LOG_BYTES = 1 << 20
DATABASE_BYTES = 16 << 20
"""A new database with its journal takes 6 MB."""
OPEN, REFUSED = (200, 404), (401, 403)
"""Statuses of a server that lets this command in, and of one that does not."""

Log = Callable[[str], None]


@dataclass(kw_only=True)
class Claim:
    """Use of the home's server by this process, until it ends."""

    home: Path
    settings: Settings
    server: HomeServer
    # The open descriptor is the claim: the kernel closes it with the process, however that ends.
    lock: int

    def wait(self) -> None:
        """Return when the server answers; one that has ended or does not answer is replaced, once."""
        if self._answers():
            return
        with _alone_at(self.home):
            current = running_server(self.home)
            if current is None or current.pid == self.server.pid:
                _end(self.server)
                # Prefect may be loaded already, and has this address.
                self.server = _start(self.settings, self.server.port, exact=True)
            else:
                # Another command was faster.
                self.server = current
        if not self._answers():
            state = "does not answer" if self.server.runs else "ended while it was starting"
            raise EnvironmentFault(f"the Prefect server of {self.home} {state}: {_cause(self.home)}")

    def check(self) -> None:
        """Raise where the server has ended, which explains whatever a flow has run into."""
        if not self.server.runs:
            raise EnvironmentFault(
                f"the Prefect server of {self.home} ended while the flow ran, so its outcome is not recorded; "
                f"what was done is kept: run the command again. {_cause(self.home)}"
            )

    def _answers(self) -> bool:
        limit_s = ANSWER_LIMIT_S if self.server.answered else START_LIMIT_S
        until = time.monotonic() + limit_s
        while self.server.runs and time.monotonic() < until:
            status = _status(self.server, self.settings)
            if status in OPEN:
                record_answer(self.home, self.server)
                return True
            if status in REFUSED:
                raise EnvironmentFault(
                    f"the Prefect server of {self.home} was started with another PREFECT_SERVER_API_AUTH_STRING: "
                    "set that one, or end it with `radloop down`"
                )
            time.sleep(POLL_S)
        return False


def claim_server(log: Log = print) -> Claim | None:
    """Start the home's server where it does not run, and make this process its client; None with another server.

    Returns at once: `Claim.wait` is for the moment before the first request. Call it before prefect loads.
    """
    settings = activate()
    if settings.other_prefect:
        return None
    home = settings.folder
    lock = _lock(home)
    server = _running(settings)
    if server is None:
        # Who has a claim cannot see whether others have one.
        os.close(lock)
        with _alone_at(home, log):
            server = _running_or_started(settings)
        if server is None:
            return None
        lock = _lock(home)
    use_home_server(f"{server.address}/api")
    return Claim(home=home, settings=settings, server=server, lock=lock)


def running_server(home: Path) -> HomeServer | None:
    """Return the server of a home where it runs."""
    server = read_server(home)
    return server if server and server.runs else None


def end_server(home: Path, log: Log | None = None) -> bool:
    """End the server of a home, and return whether there was one.

    Raises EnvironmentFault where a command uses it, which would lose its run.
    """
    if running_server(home) is None:
        return False
    with _alone_at(home, log):
        server = running_server(home)
        if server is None:
            return False
        if in_use(home):
            raise EnvironmentFault(
                f"the Prefect server of {home} is in use by a command that runs: end that first. "
                "Without one, the server ends by itself"
            )
        _end(server)
        return True


@contextmanager
def without_server(home: Path, log: Log | None = None) -> Iterator[None]:
    """Let none be started during a block, at whose end a stack may be up, and end one that no command uses.

    One that is used ends by itself after its last command: both servers have one database.
    """
    with _alone_at(home, log):
        server = running_server(home)
        if server and not in_use(home):
            _end(server)
        until = time.monotonic() + START_LIMIT_S
        # Two servers that make the tables of one database at once would disturb each other.
        while (server := running_server(home)) and not server.answered and time.monotonic() < until:
            time.sleep(POLL_S)
        yield


def _running(settings: Settings) -> HomeServer | None:
    """Return the server that runs, if it has the version and the settings of this command."""
    server = running_server(settings.folder)
    return server if server and server.made_with == _made_with(settings) else None


def _lock(home: Path) -> int:
    lock = wait_for(home / USE_LOCK, LOCK_LIMIT_S, shared=True)
    if lock is None:
        raise EnvironmentFault(
            f"the Prefect server of {home} is ending and does not come to an end: {_cause(home)}"
        )
    return lock


@contextmanager
def _alone_at(home: Path, log: Log | None = None) -> Iterator[None]:
    """Start or end servers of a home as the only command that does."""
    # To start the one server takes a moment; a wait that is longer is for a whole stack.
    with locked(home / START_LOCK, NOTICE_S) as free:
        if free:
            yield
            return
    if log:
        log("waiting for another command, which starts the servers of this home")
    with locked(home / START_LOCK, LOCK_LIMIT_S) as free:
        if not free:
            raise EnvironmentFault(f"another command has been starting the servers of {home} for minutes")
        yield


def _running_or_started(settings: Settings) -> HomeServer | None:
    """Look again, and start the server; None where a whole stack has come up meanwhile."""
    if activate().other_prefect:
        return None
    if server := _running(settings):
        return server
    last = read_server(settings.folder)
    if last and last.runs:
        if in_use(settings.folder):
            raise EnvironmentFault(
                f"a command uses the Prefect server of {settings.folder}, which has another version or database than "
                "this one: wait for its end, or give --home another folder"
            )
        _end(last)
    return _start(settings, last.port if last else 0)


def _start(settings: Settings, port: int, *, exact: bool = False) -> HomeServer:
    """Start the server on a port, or on a free one where that is taken."""
    try:
        return _launch(settings, port, exact=exact)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot start the Prefect server of {settings.folder} ({error.strerror}: {error.filename}): "
            "give --home a folder that can be written, on a disk with space"
        ) from error


def _launch(settings: Settings, port: int, *, exact: bool) -> HomeServer:
    home = settings.folder
    (home / "logs").mkdir(exist_ok=True)
    path = log_of(home)
    # A log from before a crash is worth keeping, but not for ever.
    mode = "a" if path.exists() and path.stat().st_size < LOG_BYTES else "w"
    with _listener(port, exact) as listener, path.open(mode) as log:
        # It listens already: a request that comes early is answered, and nobody else can get the port.
        command = (str(home), str(listener.fileno()), str(settings.prefect_idle_min))
        process = subprocess.Popen(
            # -P: a file json.py in the folder where the command was started must not become the library of that name.
            [sys.executable, "-P", "-m", "services.prefect.server_process", *command],
            cwd=home,
            env=environment_of_server(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(listener.fileno(),),
            # Ctrl-C and the end of the terminal are meant for the command alone.
            start_new_session=True,
        )
        server = HomeServer(
            pid=process.pid,
            since_boot_s=began(process.pid),
            port=listener.getsockname()[1],
            made_with=_made_with(settings),
        )
    try:
        write_server(home, server)
    except OSError:
        process.kill()
        raise
    return server


def _listener(port: int, exact: bool) -> socket.socket:
    until = time.monotonic() + PORT_LIMIT_S
    while True:
        for one in (port,) if exact else (port, 0):
            listener = socket.socket()
            # The last server's connections may still be known to the kernel.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", one))
                listener.listen(128)
            except OSError:
                listener.close()
            else:
                return listener
        if time.monotonic() > until:
            raise EnvironmentFault(
                f"port {port} of the home's Prefect server was taken by another process: run again"
            )
        # The threads of a process that was killed may keep its port for a moment after it.
        time.sleep(POLL_S)


def _status(server: HomeServer, settings: Settings) -> int:
    """Return the status of an answer that needs the auth string, where there is one; 0 without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PROBE_S)
    try:
        connection.request("GET", "/api/version", headers=authorization(settings))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _end(server: HomeServer) -> None:
    """End a server; raise EnvironmentFault where not even SIGKILL does, as on a disk that does not answer."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if server.runs:
            with suppress(ProcessLookupError):
                os.kill(server.pid, number)
        until = time.monotonic() + GRACE_S
        while server.runs and time.monotonic() < until:
            time.sleep(POLL_S)
    if server.runs:
        raise EnvironmentFault(f"process {server.pid}, a Prefect server, does not end: does its disk answer?")


def _made_with(settings: Settings) -> str:
    """Return a digest of what a command needs to have in common with the server that it uses."""
    database = settings.prefect_database.get_secret_value() if settings.prefect_database else ""
    return hashlib.sha256(f"{importlib.metadata.version('prefect')} {database}".encode()).hexdigest()[:16]


def log_of(home: Path) -> Path:
    """Return the log of the server of a home."""
    return home / "logs" / "prefect-server.log"


def _cause(home: Path) -> str:
    """Return what is known of why the server ended: the space of its disk, and the last line of its log."""
    lines: list[str] = []
    with suppress(OSError):
        free = shutil.disk_usage(home).free
        if free < DATABASE_BYTES:
            return f"its disk has {free / 1e6:.1f} MB left, make room (log: {log_of(home)})"
        lines = [line for line in log_of(home).read_text(errors="replace").splitlines() if line.strip()]
    return f"see {log_of(home)}" + (f", which ends with {lines[-1].strip()!r}" if lines else "")
