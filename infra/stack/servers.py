"""Servers of the one-machine stack: the command of each, and the test whether it answers."""

import base64
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from infra.stack.processes import StackError
from infra.stack.record import Stack

POOL = "radloop"
PORTS = ("ray-head", "ray-client", "ray-agent", "ray-dashboard-metrics", "ray-autoscaler-metrics")
"""Ports that no person uses; Ray takes fixed ones where none is given."""

LOGIN = "PREFECT_API_AUTH_STRING"
"""Environment variable with USER:PASSWORD, where Prefect's server asks for it; its clients read the same."""
OBJECT_STORE_BYTES = 256 * 2**20
PROBE_TIMEOUT_S = 15.0
BUSY_LIMIT_S = 30.0
POLL_S = 0.5
# A hospital's proxy cannot reach this machine's loopback interface.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True)
class Server:
    """One process of the stack: its command, the test whether it answers, and its own environment variables."""

    name: str
    command: tuple[str, ...]
    answers: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


def prefect_server(stack: Stack) -> Server:
    """Return Prefect's server; its database is the one of the embedded default."""
    address = stack.addresses["prefect"]
    return Server(
        name="prefect",
        command=_python(
            "prefect", "server", "start", "--host", "127.0.0.1", "--port", stack.ports["prefect"]
        ),
        answers=lambda: answer_of(f"{address}/api/health") is True,
    )


def mlflow_server(stack: Stack) -> Server:
    """Return MLflow's server on the embedded default's database; clients read and write files by themselves."""
    address, home = stack.addresses["mlflow"], stack.home
    return Server(
        name="mlflow",
        command=_python(
            *("mlflow", "server", "--host", "127.0.0.1", "--port", stack.ports["mlflow"], "--workers", 1),
            *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"),
            *("--no-serve-artifacts", "--default-artifact-root", (home / "mlartifacts").as_uri()),
        ),
        answers=lambda: answer_of(f"{address}/health") == "OK",
        # Its job runners would take 2 GB that nothing here uses.
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )


def ray_head(stack: Stack) -> Server:
    """Return a Ray head that requires the token; its page and its Jobs API answer on the loopback interface."""
    address, ports = stack.addresses["ray"], stack.ports
    options = {
        "port": ports["ray-head"],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports["ray"],
        "dashboard-agent-listen-port": ports["ray-agent"],
        "ray-client-server-port": ports["ray-client"],
        "temp-dir": stack.ray_temp,
        "num-cpus": max(2, os.cpu_count() or 1),
        # Images reach the workers through memory maps, not through Ray.
        "object-store-memory": OBJECT_STORE_BYTES,
    }
    given = (f"--{name}={value}" for name, value in options.items())
    return Server(
        name="ray",
        command=_python("ray.scripts.scripts", "start", "--head", "--block", "--log-style=record", *given),
        answers=lambda: isinstance(
            answer_of(f"{address}/api/jobs/", token=stack.token_file.read_text()), list
        ),
        environment={
            "DASHBOARD_METRIC_PORT": str(ports["ray-dashboard-metrics"]),
            "AUTOSCALER_METRIC_PORT": str(ports["ray-autoscaler-metrics"]),
        },
    )


def worker(stack: Stack) -> Server:
    """Return the worker that starts flow runs as processes of this machine."""
    pool, log = f"{stack.addresses['prefect']}/api/work_pools/{POOL}", stack.logs / "worker.log"
    return Server(
        name="worker",
        command=_python("prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL),
        # The pool alone may still be ready from a worker that ended a moment ago.
        answers=lambda: (
            "started!" in log.read_text() and (prefect_answer(pool) or {}).get("status") == "READY"
        ),
        environment={
            # Its server is on the same machine: a person at the page should not wait for 10 s.
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            # In /tmp, runner_storage belongs to the first user of the machine who starts a worker, and locks others out
            # (Prefect's issue 11121).
            "TMPDIR": str(stack.temporary),
            # Sockets of Ray need a short path.
            "RAY_TMPDIR": tempfile.gettempdir(),
        },
    )


SERVERS: tuple[Callable[[Stack], Server], ...] = (prefect_server, mlflow_server, ray_head)
"""Servers that can be started together; the worker needs Prefect's server."""


def answer_of(url: str, body: Mapping[str, Any] | None = None, token: str = "") -> Any:
    """Return the answer of an address, JSON or text; None where it does not answer, or refuses."""
    try:
        return _asked(url, body, f"Bearer {token}" if token else "")
    except (urllib.error.URLError, OSError):
        return None


def prefect_answer(url: str, body: Any = None, method: str | None = None) -> Any:
    """Return the answer of Prefect's API, as `answer_of`; raise StackError where it asks for another login.

    The method is GET, or POST with a body, where none is given.
    """
    login = os.environ.get(LOGIN, "")
    try:
        secret = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        return _asked(url, body, secret, method)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            raise StackError(
                f"the Prefect server at {urlsplit(url).netloc} asks for {'another' if login else 'a'} login: set "
                f"{LOGIN} to the one that it was started with"
            ) from error
        return None
    except (urllib.error.URLError, OSError):
        return None


def repeated_answer(url: str, body: Any = None, method: str | None = None) -> Any:
    """Return the answer of Prefect's API, asked again while its server is too busy; None after `BUSY_LIMIT_S`.

    It answers 503 where its database is locked, and has changed nothing then.
    """
    until = time.monotonic() + BUSY_LIMIT_S
    while (answer := prefect_answer(url, body, method)) is None and time.monotonic() < until:
        time.sleep(POLL_S)
    return answer


def _asked(url: str, body: Any, authorization: str, method: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": authorization} if authorization else {}
    )
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers, method=method)
    with DIRECT.open(request, timeout=PROBE_TIMEOUT_S) as response:
        text = response.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def _python(module: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *map(str, arguments))
