"""Sandbox workers: their environment, their start, and that none stays when its parent is gone."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from imaging.errors import EnvironmentFault, UserFault
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import ONE_THREAD, WorkerLimits
from tests.sandbox_pools import MakePool, act, numbers, outcomes, pools, shortened, workers_of

pytestmark = pytest.mark.slow

PARENT = """
import sys, time
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import WorkerLimits
with Pool("tests.sandbox_functions:act", {}, workers=1, limits=WorkerLimits(timeout_s=1)) as pool:
    answers = pool.map([Item({}), Item({"act": sys.argv[1]})])
    next(answers)
    print(pool._workers[0].process.pid, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def make() -> Iterator[MakePool]:
    with pools() as make:
        yield make


@pytest.mark.slow
def test_a_worker_that_switched_its_alarm_off_is_ended_all_the_same(make: MakePool) -> None:
    assert outcomes(make(), act("hang_for_good"), Item({})) == [("decoder-hung", "no result within 1 s"), {}]


def test_the_streams_of_a_worker_lead_nowhere(make: MakePool) -> None:
    assert outcomes(make(), act("process"))[0]["streams"] == [os.devnull] * 3


def test_nothing_of_a_decoder_reaches_the_terminal(make: MakePool, capfd: pytest.CaptureFixture[str]) -> None:
    outcomes(make(), Item({}), act("quote_a_patient"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        ("tests.no_such_module:act", "ModuleNotFoundError: No module named 'tests.no_such_module'"),
        ("tests.sandbox_functions:no_such_act", "AttributeError: .*no_such_act"),
    ],
)
def test_a_worker_that_cannot_start_is_a_fault_of_the_environment(function: str, cause: str) -> None:
    with (
        pytest.raises(EnvironmentFault, match=f"cannot start: {cause}"),
        Pool(function, {}, workers=1) as pool,
    ):
        list(pool.map(numbers(3)))


def test_a_worker_that_is_not_ready_in_time_is_a_fault_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(1000)")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("START_LIMIT_S", "EXIT_LIMIT_S"):
        monkeypatch.setattr(f"imaging.sandbox.worker_process.{name}", 0.5)
    with (
        pytest.raises(EnvironmentFault, match=r"not ready within 0\.5 s"),
        Pool("slow_to_import:act", {}) as pool,
    ):
        list(pool.map(numbers(1)))


def test_a_missing_interpreter_is_a_fault_of_the_environment(
    make: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(EnvironmentFault, match="cannot start: No such file"):
        outcomes(make(), Item({}))


def test_a_worker_has_one_thread_and_no_core_dump_and_no_passwords(
    make: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (seen,) = outcomes(make(), act("process"))
    assert (seen["cv2_threads"], seen["threads"], seen["core"]) == (1, 1, [0, 0])
    assert seen["oom_score_adj"] == "800"
    assert {*seen["environment"]} <= {
        *ONE_THREAD,
        "PYTHONPATH",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "TMPDIR",
    }


@pytest.mark.parametrize("value", [{"timeout_s": 0}, {"memory_mib": -1}, {"timeout_s": math.inf}])
def test_limits_that_limit_nothing_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(UserFault, match=next(iter(value))):
        WorkerLimits(**value)


def test_a_pool_that_is_left_has_no_workers() -> None:
    with Pool("tests.sandbox_functions:act", {}, workers=2) as pool:
        list(pool.map(numbers(20)))
        assert len(workers_of(os.getpid())) == 2
    assert not workers_of(os.getpid())


def test_an_iterator_that_is_left_early_ends_the_workers_that_are_busy(make: MakePool) -> None:
    answers = make(limits=WorkerLimits(timeout_s=60)).map([Item({}), act("hang")])
    next(answers)
    answers.close()
    assert not workers_of(os.getpid())


def test_an_error_of_the_items_reaches_the_caller_and_ends_the_workers(make: MakePool) -> None:
    def items() -> Iterator[Item]:
        yield act("hang")
        raise EnvironmentFault("the archive went away")

    with pytest.raises(EnvironmentFault, match="went away"):
        list(make().map(items()))
    assert not workers_of(os.getpid())


def test_a_pool_works_again_after_an_error(make: MakePool) -> None:
    pool = make()
    with pytest.raises(EnvironmentFault):
        outcomes(pool, act("miss_a_decoder"))
    assert outcomes(pool, Item({})) == [{}]


@pytest.mark.parametrize("last", ["echo", "hang"])
def test_workers_follow_a_parent_that_was_killed(tmp_path: Path, last: str) -> None:
    command = [sys.executable, "-c", PARENT, last]
    # Started elsewhere, beside a file that must not become a module.
    (tmp_path / "json.py").write_text("raise ImportError")
    with subprocess.Popen(
        [*command[:1], "-P", *command[1:]], stdout=subprocess.PIPE, cwd=tmp_path, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        worker = psutil.Process(pid)
        parent.send_signal(signal.SIGKILL)
    assert psutil.wait_procs([worker], timeout=10)[0] == [worker]


def test_a_parent_started_by_a_relative_path_gives_its_modules_to_the_workers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def act(setup, value, blobs):\n    return 'mine', []\n")
    code = (
        "from imaging.sandbox.pool import Item, Pool\n"
        "with Pool('mine:act', {}, workers=1) as pool: print(next(pool.map([Item({})])).value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "mine\n"


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_leaves_interrupts_to_its_parent(make: MakePool, name: signal.Signals) -> None:
    """Ctrl-C reaches each process of the terminal."""
    pool = make()
    before = outcomes(pool, act("leak", mib=0))
    next(answers := pool.map([Item({}), Item({"wait_s": 0.3}), act("leak", mib=0)]))
    pool._workers[0].process.send_signal(name)
    assert [shortened(answer) for answer in answers][1:] == before
