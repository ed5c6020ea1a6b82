"""Process of the Prefect server of a home: it serves a socket that it is handed, and ends itself when nobody needs it.

It is what Prefect itself starts for a flow without a server (`create_app(ephemeral=True)`), but stays for the next
command: to load and to migrate it takes as long as a small flow.
"""

import asyncio
import gc
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import typer
import uvicorn

from services.prefect.run_record import abandoned_runs
from services.prefect.server_record import USE_LOCK, read_server, take
from services.settings import environment_of_server

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
LOOK_S = 5.0
"""Between two looks at whether the server is still needed."""
QUIET_S = 20.0
"""After a request events and logs are still being written, and connections are kept for 5 s."""
SLEEP_S, AWAKE_S = 2.0, 0.05
"""Of a server that nobody asks: seconds at rest, and seconds for whatever else has become due."""
REPAIR_S = 30.0
"""Between two looks for commands that were killed."""
POLL_S = 2.0
"""Between two looks into the queue of background jobs; at the default of 0.25 s an idle server takes 2 % of a core."""


class RequestClock:
    """Application that knows how long ago the last request was; an open connection of events counts as one."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._open = 0
        self._last = time.monotonic()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Hand a request on to the application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1
            self.touch()

    def touch(self) -> None:
        """Count what happens now as a request."""
        self._last = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the end of the last request; 0 during one."""
        return 0.0 if self._open else time.monotonic() - self._last


class Repairs:
    """Processes that give the runs of a command that was killed an end; each run gets one, since it may fail."""

    def __init__(self, home: Path, port: int) -> None:
        self._home, self._api = home, f"http://127.0.0.1:{port}/api"
        self._tried: set[str] = set()
        self._looked = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None

    def begin_where_due(self) -> None:
        """Look from time to time whether a process has ended that ran a flow, and begin a repair."""
        now = time.monotonic()
        # poll also frees what the kernel keeps of a process that has ended.
        if now - self._looked < REPAIR_S or (self._process and self._process.poll() is None):
            return
        self._looked = now
        runs = {record.flow_run for record in abandoned_runs(self._home)}
        if runs - self._tried:
            self._tried |= runs
            own = {"PREFECT_API_URL": self._api, "RADLOOP_HOME_SERVER": self._api}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "services.open_runs"], env=environment_of_server() | own
            )


def is_needed(home: Path, clock: RequestClock, idle_s: float) -> bool:
    """Return whether the server goes on; where not, no command can begin to use it any more."""
    if clock.idle_s == 0:
        return True
    own = read_server(home)
    if own is None or own.pid != os.getpid():
        # The home is gone, or another server has taken this one's place.
        return False
    # The lock is kept until the process ends: who wants to use it waits for that, and starts another.
    return clock.idle_s < idle_s or take(home / USE_LOCK) is None


def serve(listener: socket.socket, home: Path, idle_s: float) -> None:
    """Serve Prefect's API on a socket that listens, until it is not needed any more."""
    # Loaded here: they take seconds, and only this process needs them.
    import prefect.server.api.background_workers as background
    from docket import Worker
    from prefect.server.api.server import create_app

    pause = timedelta(seconds=POLL_S)
    # There is no setting for it.
    vars(background)["Worker"] = partial(Worker, minimum_check_interval=pause, scheduling_resolution=pause)
    clock = RequestClock(create_app(ephemeral=True))
    server = uvicorn.Server(
        uvicorn.Config(clock, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
    )

    async def run() -> None:
        look = asyncio.create_task(end_when_idle())
        await server.serve(sockets=[listener])
        look.cancel()
        with suppress(asyncio.CancelledError):
            await look

    async def end_when_idle() -> None:
        while not server.started:
            await asyncio.sleep(0.1)
        gc.enable()
        # What was loaded stays.
        gc.freeze()
        repairs = Repairs(home, listener.getsockname()[1])
        while is_needed(home, clock, idle_s) and not server.should_exit:
            repairs.begin_where_due()
            if clock.idle_s > QUIET_S:
                # Its loops ask ten times a second for nothing: all of them wait here for the next connection.
                if select.select([listener], [], [], SLEEP_S)[0]:
                    clock.touch()
                await asyncio.sleep(AWAKE_S)
            else:
                await asyncio.sleep(min(LOOK_S, idle_s / 4))
        server.should_exit = True

    asyncio.run(run())


def main(home: Path, descriptor: int, idle_min: float) -> None:
    """Serve the socket with this descriptor."""
    serve(socket.socket(fileno=descriptor), home, idle_min * 60)


if __name__ == "__main__":
    # Half of the start went to the collector, which walks again and again through what the imports make.
    gc.disable()
    typer.run(main)
