"""Processes of the stack: they are recognised and ended with their children; ports and the record of the stack."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.stack.ports import choose_ports, keep_ports, last_ports
from infra.stack.processes import OwnedProcess, StackError, end, tail
from infra.stack.record import FILE, Stack, read_stack
from services.stack_file import running_stack
from tests.conftest import FAILING, MARK, PORTS, SLEEP, until

pytestmark = pytest.mark.slow

DEAF = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)",
)
PARENT = (
    sys.executable,
    "-c",
    f"import subprocess, time; print(subprocess.Popen({list(SLEEP)}).pid, flush=True); time.sleep(300)",
)


def first_line(owned: OwnedProcess) -> str:
    return until(lambda: tail(owned.log), "the first line").splitlines()[0]


def test_a_process_has_a_session_of_its_own(begin: Callable[..., OwnedProcess]) -> None:
    assert os.getsid(begin(SLEEP).pid) != os.getsid(0)


def test_a_process_is_recognised(begin: Callable[..., OwnedProcess]) -> None:
    assert begin(SLEEP).process() is not None


def test_another_process_with_the_same_pid_is_not_taken_for_it(begin: Callable[..., OwnedProcess]) -> None:
    owned = begin(SLEEP)
    assert replace(owned, since_boot_s=owned.since_boot_s - 60).process() is None
    # Services of a machine begin at much the same moment after each start, with much the same pids.
    assert replace(owned, boot="another start of the machine").process() is None


def test_a_process_that_ended_is_not_recognised(begin: Callable[..., OwnedProcess]) -> None:
    owned = begin(FAILING)
    until(lambda: owned.process() is None, "its end")


def test_what_a_process_prints_is_in_its_log(begin: Callable[..., OwnedProcess]) -> None:
    assert first_line(begin(FAILING)) == "no such door"


def test_a_process_gets_its_environment(begin: Callable[..., OwnedProcess]) -> None:
    command = (sys.executable, "-c", "import os; print(os.environ['COLOUR'])")
    assert first_line(begin(command, COLOUR="blue")) == "blue"


def test_ending_ends_the_children_too(begin: Callable[..., OwnedProcess]) -> None:
    owned = begin(PARENT)
    child = psutil.Process(int(first_line(owned)))
    assert end([owned], MARK, grace_s=5) == 2
    assert not alive(child)


def test_ending_is_firm_with_what_does_not_listen(begin: Callable[..., OwnedProcess]) -> None:
    owned = begin(DEAF)
    first_line(owned)
    end([owned], MARK, grace_s=0.5)
    assert owned.process() is None


def test_ending_spares_the_new_owner_of_a_pid(begin: Callable[..., OwnedProcess]) -> None:
    owned = begin(SLEEP)
    assert end([replace(owned, since_boot_s=owned.since_boot_s - 60)], MARK, grace_s=0) == 0
    assert owned.process() is not None


def test_orphans_are_recognised_by_their_mark(begin: Callable[..., OwnedProcess]) -> None:
    owned = begin(PARENT, RADLOOP_STACK=MARK[1])
    child = psutil.Process(int(first_line(owned)))
    os.kill(owned.pid, signal.SIGKILL)
    end([owned], MARK, grace_s=5)
    assert not alive(child)


def test_orphans_of_another_stack_are_spared(begin: Callable[..., OwnedProcess]) -> None:
    owned = begin(SLEEP, RADLOOP_STACK="another")
    end([], MARK, grace_s=0)
    assert owned.process() is not None


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_free_ports_are_all_different() -> None:
    assert len(set(choose_ports(dict.fromkeys("abcdefgh")).values())) == 8


def test_a_free_port_is_none_that_the_kernel_gives_to_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(20_000 <= port < lowest for port in choose_ports(dict.fromkeys("abcdefgh")).values())


def test_a_port_that_is_asked_for_is_given() -> None:
    port = choose_ports({"a": None})["a"]
    assert choose_ports({"a": port, "b": None})["a"] == port
    assert choose_ports({"a": port}, {"a": port + 1})["a"] == port


def test_the_port_of_the_last_time_is_given_again(tmp_path: Path) -> None:
    assert last_ports(tmp_path) == {}
    before = choose_ports(dict.fromkeys(PORTS))
    keep_ports(tmp_path, before)
    assert choose_ports({**dict.fromkeys("xyz"), **PORTS}, last_ports(tmp_path)).items() >= before.items()


@pytest.mark.parametrize("content", ["", "[]", '{"mlflow": "5000"}', '{"mlflow": 0}', '{"mlflow": 99999}'])
def test_damaged_ports_are_no_ports(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert last_ports(tmp_path) == {}


def test_a_port_of_the_last_time_that_is_taken_gives_way_with_a_line() -> None:
    lines = list[str]()
    # On all interfaces, as a server for other machines.
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        chosen = choose_ports({"mlflow": None}, {"mlflow": port}, lines.append)["mlflow"]
    (line,) = lines
    assert chosen != port
    assert line.startswith(
        f"port {port} of mlflow, as at the last `up`, is taken by another program: mlflow gets {chosen} "
    )
    assert line.endswith(f"`radloop up --mlflow-port {port}`")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} for mlflow.*give --mlflow-port another"):
            choose_ports({"mlflow": port}, {"mlflow": port})


def test_two_servers_cannot_have_one_port() -> None:
    port = choose_ports({"a": None})["a"]
    with pytest.raises(StackError, match=f"port {port} for b"):
        choose_ports({"a": port, "b": port})


def test_a_clock_that_is_set_back_changes_no_process(
    begin: Callable[..., OwnedProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel counts the start of the machine, and psutil that of a process, from the time of the day."""
    owned = begin(SLEEP)
    boot, created = psutil.boot_time(), psutil.Process(owned.pid).create_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot - 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: created - 3600)
    assert owned.process() is not None


def test_a_record_with_the_time_of_the_day_is_read(
    tmp_path: Path, begin: Callable[..., OwnedProcess]
) -> None:
    owned = begin(SLEEP)
    Stack(
        home=tmp_path, mark="m", ports=dict.fromkeys(PORTS, 1), ray_temp="/t", ready=True, processes=(owned,)
    ).written()
    content = json.loads((tmp_path / FILE).read_text())
    del content["processes"][0]["since_boot_s"], content["processes"][0]["boot"]
    content["processes"][0]["created"] = psutil.Process(owned.pid).create_time()
    (tmp_path / FILE).write_text(json.dumps(content))
    stack = read_stack(tmp_path)
    assert stack is not None
    assert stack.up
    assert running_stack(tmp_path)
    stack.written()
    assert running_stack(tmp_path)
    replace(stack, processes=(replace(stack.processes[0], boot="another"),)).written()
    assert not running_stack(tmp_path)


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    owned = OwnedProcess(name="mlflow", pid=1, boot="b", since_boot_s=2.0, log="x.log")
    written = Stack(home=tmp_path, mark="m", ports=dict.fromkeys(PORTS, 1), ray_temp="/t", processes=(owned,))
    assert read_stack(tmp_path) is None
    assert read_stack(written.written().home) == written


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"mark": ')
    with pytest.raises(StackError, match=r"stack\.json is damaged.*remove it"):
        read_stack(tmp_path)
