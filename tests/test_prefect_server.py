"""Prefect server of the home: commands share it, heal it, and it ends when nobody needs it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from imaging.errors import EnvironmentFault
from infra.stack.processes import OwnedProcess, StackError
from infra.stack.servers import answer_of, prefect_answer
from services.prefect import server as servers
from services.prefect.server_process import RequestClock, is_needed
from services.prefect.server_record import (
    FILE,
    USE_LOCK,
    HomeServer,
    began,
    in_use,
    read_server,
    take,
    write_server,
)
from services.settings import Settings, activate, environment_of_server
from tests.conftest import SLEEP, fresh_environment, until
from tests.small_disks import small_disk
from tests.synthetic import closed_port, write_archive

CLAIM = (
    "import sys; from services.prefect.server import claim_server; claim = claim_server(); claim.wait(); "
    "print(claim.server.pid, claim.server.port, flush=True); sys.stdin.read()"
)
"""Command that does what each command with a flow does first, and stays until its input ends."""
LOGIN = "radloop:word-of-tests"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a home that tests share: to make its database takes longer than all else."""
    home = tmp_path_factory.mktemp("served") / "home"
    yield home
    ended(home)


def ended(home: Path) -> None:
    """End the server of a home, whoever uses it."""
    if server := servers.running_server(home):
        servers._end(server)


def begun(home: Path, **environment: str) -> subprocess.Popen[str]:
    """Begin a command that uses the server."""
    with fresh_environment():
        given = {**os.environ, "RADLOOP_HOME": str(home), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM],
        env=given,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def used(home: Path, **environment: str) -> tuple[int, int]:
    """Use the server for a moment; return its pid and its port."""
    done = begun(home, **environment)
    output, errors = done.communicate(timeout=240)
    assert done.returncode == 0, errors
    pid, port = output.split()
    return int(pid), int(port)


def radloop(home: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    with fresh_environment():
        given = {**os.environ, "COLUMNS": "400", **environment}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "--home", home, *arguments],
        env=given,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def record() -> HomeServer:
    """Return the record of a server that this process stands for."""
    return HomeServer(pid=os.getpid(), since_boot_s=began(os.getpid()), port=closed_port(), made_with="this")


@pytest.mark.slow
def test_commands_at_once_on_a_fresh_home_share_one_server(home: Path) -> None:
    commands = [begun(home) for _ in range(3)]
    outputs = [command.communicate(timeout=240) for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    listening = [one for one in psutil.process_iter(["cmdline"]) if str(home) in (one.info["cmdline"] or ())]
    assert len(listening) == 1


@pytest.mark.slow
def test_the_next_command_finds_it_and_it_belongs_to_no_terminal(home: Path) -> None:
    pid, port = used(home)
    assert used(home) == (pid, port)
    assert os.getsid(pid) == pid
    (log,) = (home / "logs").iterdir()
    assert log == servers.log_of(home)
    assert {item.laddr.ip for item in psutil.Process(pid).net_connections()} == {"127.0.0.1"}


@pytest.mark.slow
def test_a_server_that_was_killed_is_replaced_at_its_address(home: Path) -> None:
    pid, port = used(home)
    os.kill(pid, signal.SIGKILL)
    new_pid, new_port = used(home)
    assert (new_pid != pid, new_port) == (True, port)
    assert answer_of(f"http://127.0.0.1:{port}/api/health") is True


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid, port = used(home)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(servers, "ANSWER_LIMIT_S", 1.0)
    monkeypatch.setattr(servers, "GRACE_S", 0.5)
    with fresh_environment():
        os.environ["RADLOOP_HOME"] = str(home)
        claim = servers.claim_server()
        assert claim is not None
        claim.wait()
    os.close(claim.lock)
    assert (claim.server.pid != pid, claim.server.port) == (True, port)


@pytest.mark.slow
def test_status_names_it_and_down_ends_it_but_not_under_a_command(home: Path) -> None:
    pid, port = used(home)
    assert f"http://127.0.0.1:{port}" in radloop(home, "status").stdout
    user = begun(home)
    until(lambda: in_use(home), "a claim")
    refused = radloop(home, "down")
    assert (refused.returncode, "in use by a command that runs" in refused.stderr) == (2, True)
    user.communicate("")
    assert "Ended the Prefect server of the home" in radloop(home, "down").stdout
    assert began(pid) < 0


@pytest.mark.slow
def test_an_idle_server_ends_and_one_in_use_does_not(home: Path) -> None:
    ended(home)
    user = begun(home, RADLOOP_PREFECT_IDLE_MIN="0.02")
    assert user.stdout is not None
    pid = int(user.stdout.readline().split()[0])
    with pytest.raises(AssertionError):
        until(lambda: began(pid) < 0, "its end", limit_s=5)
    user.communicate("")
    until(lambda: began(pid) < 0, "its end", limit_s=20)


@pytest.mark.slow
def test_a_login_is_asked_for_and_given_by_either_name(home: Path) -> None:
    ended(home)
    pid, port = used(home, PREFECT_SERVER_API_AUTH_STRING=LOGIN)
    with (
        fresh_environment(),
        pytest.raises(StackError, match="asks for a login: set PREFECT_API_AUTH_STRING"),
    ):
        prefect_answer(f"http://127.0.0.1:{port}/api/version")
    assert used(home, PREFECT_API_AUTH_STRING=LOGIN)[0] == pid
    without = begun(home)
    assert "was started with another PREFECT_SERVER_API_AUTH_STRING" in without.communicate()[1]
    ended(home)


@pytest.mark.slow
def test_a_night_with_nothing_new_loads_no_server_and_no_pandas(home: Path, tmp_path: Path) -> None:
    folder, labels = write_archive(tmp_path / "dicom")
    given = ("ingest", "--source", folder, "--labels", labels, "--name", "chest")
    assert radloop(home, *given).returncode == 0
    code = (
        "import sys, cli.main\n"
        "try: cli.main.main()\n"
        "finally: print([name for name in sys.modules if name.startswith(('prefect.server', 'uvicorn', 'pandas'))])"
    )
    with fresh_environment():
        done = subprocess.run(
            [sys.executable, "-c", code, "--home", home, *given],
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
    assert done.stdout.splitlines()[-1] == "[]"
    (server,) = [read_server(home)]
    assert server is not None
    runs = answer_of(f"{server.address}/api/flow_runs/filter", {"limit": 10})
    assert [run["state_name"] for run in runs] == ["Completed", "Completed"]


@pytest.mark.slow
def test_a_server_that_is_killed_while_a_flow_runs_is_named(home: Path, tmp_path: Path) -> None:
    used(home)
    code = (
        "import os, signal, sys, cli.flow_run, cli.main\n"
        "from services.prefect.server_record import read_server\n"
        "def killing(request):\n"
        f"  os.kill(read_server(cli.flow_run.Path({str(home)!r})).pid, signal.SIGKILL)\n"
        "  from prefect import flow\n"
        "  flow(lambda: None, name='empty')()\n"
        "cli.flow_run.check_request = lambda *_: None\n"
        "cli.flow_run.load_flow = lambda name: killing\n"
        "cli.main.main()"
    )
    with fresh_environment():
        done = subprocess.run(
            [sys.executable, "-c", code, "--home", home, "train"],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 2, done.stderr
    assert "ended while the flow ran" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        done = begun(disk / "home")
        error = done.communicate(timeout=240)[1].splitlines()[-1]
        ended(disk / "home")
    assert "EnvironmentFault" in error
    assert "MB left, make room" in error


@pytest.mark.parametrize(
    "command", [("--help",), ("status",), ("dataset", "list"), ("inspect", "SOURCE"), ("ingest",), ("down",)]
)
@pytest.mark.slow
def test_what_needs_no_prefect_starts_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder, _ = write_archive(tmp_path / "dicom", 1)
    radloop(tmp_path / "home", *(str(folder) if word == "SOURCE" else word for word in command))
    assert not (tmp_path / "home" / FILE).exists()


def test_another_server_is_used_and_none_started(settings: Settings) -> None:
    os.environ["PREFECT_API_URL"] = "http://prefect.hospital.example:4200/api"
    assert servers.claim_server() is None
    assert not (settings.folder / FILE).exists()


def test_a_server_of_the_home_is_no_other_one(settings: Settings) -> None:
    os.environ |= dict.fromkeys(("PREFECT_API_URL", "RADLOOP_HOME_SERVER"), "http://127.0.0.1:9/api")
    assert Settings().other_prefect is None
    os.environ["PREFECT_API_URL"] = "http://127.0.0.1:8/api"
    assert Settings().other_prefect == "http://127.0.0.1:8/api"


def test_either_name_of_the_login_sets_the_other(settings: Settings) -> None:
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = LOGIN
    activate()
    assert os.environ["PREFECT_API_AUTH_STRING"] == LOGIN
    del os.environ["PREFECT_SERVER_API_AUTH_STRING"]
    activate()
    assert os.environ["PREFECT_SERVER_API_AUTH_STRING"] == LOGIN


def test_the_server_gets_no_key(settings: Settings) -> None:
    os.environ |= {"RADLOOP_KEY": "0" * 64, "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "true"}
    given = environment_of_server()
    assert "RADLOOP_KEY" not in given
    assert given["PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED"] == "true"


def test_a_folder_that_cannot_be_written_is_one_sentence(settings: Settings) -> None:
    settings.folder.mkdir()
    (settings.folder / "logs").touch()
    with pytest.raises(EnvironmentFault, match=r"cannot start the Prefect server .*: give --home a folder"):
        servers.claim_server()


def test_a_home_that_cannot_be_written_is_one_sentence(settings: Settings) -> None:
    settings.folder.mkdir()
    # Root may write everywhere else.
    (settings.folder / USE_LOCK).mkdir()
    with pytest.raises(EnvironmentFault, match=r"cannot write .*\.lock \(.*\): give --home a folder"):
        servers.claim_server()


def test_a_pid_that_is_another_processs_by_now_is_not_the_server(tmp_path: Path, record: HomeServer) -> None:
    write_server(tmp_path, record)
    assert servers.running_server(tmp_path) == record
    write_server(tmp_path, replace(record, since_boot_s=record.since_boot_s - 60))
    assert servers.running_server(tmp_path) is None


def test_a_clock_that_is_set_back_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, record: HomeServer
) -> None:
    """The kernel counts the start of the machine, and psutil that of a process, from the time of the day."""
    boot, created = psutil.boot_time(), psutil.Process().create_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot - 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: created - 3600)
    assert record.runs


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": 1}'])
def test_a_damaged_record_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert read_server(tmp_path) is None


def test_a_record_of_a_newer_release_is_read(tmp_path: Path, record: HomeServer) -> None:
    write_server(tmp_path, record)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | {"newer": 1}))
    assert read_server(tmp_path) == record


def test_a_port_that_is_taken_gives_way_to_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PORT_LIMIT_S", 0.1)
    with servers._listener(0, exact=False) as first:
        taken = first.getsockname()[1]
        with servers._listener(taken, exact=False) as second:
            assert second.getsockname()[1] != taken
        with pytest.raises(EnvironmentFault, match=f"port {taken} .* was taken"):
            servers._listener(taken, exact=True)


def test_a_port_that_is_free_a_moment_later_is_waited_for() -> None:
    before = servers._listener(0, exact=False)
    port = before.getsockname()[1]
    threading.Timer(0.3, before.close).start()
    with servers._listener(port, exact=True) as listener:
        assert listener.getsockname()[1] == port


def test_a_stack_starts_beside_a_server_in_use_and_ends_an_idle_one(
    tmp_path: Path, begin: Callable[..., OwnedProcess]
) -> None:
    pid = begin(SLEEP).pid
    server = HomeServer(pid=pid, since_boot_s=began(pid), port=1, made_with="this", answered=True)
    write_server(tmp_path, server)
    claim = take(tmp_path / USE_LOCK, shared=True)
    assert claim is not None
    with servers.without_server(tmp_path):
        assert server.runs
    os.close(claim)
    with servers.without_server(tmp_path):
        assert not server.runs


def test_commands_wait_while_a_stack_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, record: HomeServer
) -> None:
    settings.folder.mkdir()
    monkeypatch.setattr(servers, "NOTICE_S", 0.0)
    monkeypatch.setattr(servers, "LOCK_LIMIT_S", 0.1)
    monkeypatch.setattr(servers, "_start", lambda *_: record)
    lines = list[str]()
    with servers.without_server(settings.folder), pytest.raises(EnvironmentFault, match="for minutes"):
        servers.claim_server(lines.append)
    with (
        servers.without_server(settings.folder),
        pytest.raises(EnvironmentFault, match="for minutes"),
        servers.without_server(settings.folder, lines.append),
    ):
        pass
    assert lines == ["waiting for another command, which starts the servers of this home"] * 2
    claim = servers.claim_server(lines.append)
    assert claim is not None
    assert os.environ["PREFECT_API_URL"] == f"http://127.0.0.1:{record.port}/api"
    os.close(claim.lock)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], RequestClock]:
    async def nothing(*_: object) -> None: ...

    def idle_for(seconds: float) -> RequestClock:
        monkeypatch.setattr(RequestClock, "idle_s", property(lambda _: seconds))
        return RequestClock(nothing)

    return idle_for


def test_a_server_whose_home_is_gone_or_has_another_ends(
    tmp_path: Path, clock: Callable[[float], RequestClock], record: HomeServer
) -> None:
    assert not is_needed(tmp_path, clock(1), idle_s=60)
    write_server(tmp_path, record)
    assert is_needed(tmp_path, clock(1), idle_s=60)
    write_server(tmp_path, replace(record, pid=1))
    assert not is_needed(tmp_path, clock(1), idle_s=60)
    assert is_needed(tmp_path, clock(0), idle_s=60)


def test_a_claim_keeps_a_server_that_nobody_asks(
    tmp_path: Path, clock: Callable[[float], RequestClock], record: HomeServer
) -> None:
    write_server(tmp_path, record)
    claim = take(tmp_path / USE_LOCK, shared=True)
    assert claim is not None
    assert is_needed(tmp_path, clock(61), idle_s=60)
    os.close(claim)
    assert not is_needed(tmp_path, clock(61), idle_s=60)
