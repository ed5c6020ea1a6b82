"""Processes of the stack: they are recognised and ended with their children; ports and the record of the stack."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.stack.processes import OwnedProcess, StackError, choose_ports, end, tail
from infra.stack.record import FILE, Stack, read_stack
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
    assert replace(owned, created=owned.created - 60).process() is None


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
    assert end([replace(owned, created=owned.created - 60)], MARK, grace_s=0) == 0
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


def test_a_port_that_is_asked_for_is_given() -> None:
    port = choose_ports({"a": None})["a"]
    assert choose_ports({"a": port, "b": None})["a"] == port


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} for mlflow.*give another"):
            choose_ports({"mlflow": port})


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    owned = OwnedProcess(name="mlflow", pid=1, created=2.0, log="x.log")
    written = Stack(home=tmp_path, mark="m", ports=dict.fromkeys(PORTS, 1), ray_temp="/t", processes=(owned,))
    assert read_stack(tmp_path) is None
    assert read_stack(written.written().home) == written


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"mark": ')
    with pytest.raises(StackError, match=r"stack\.json is damaged.*remove it"):
        read_stack(tmp_path)
