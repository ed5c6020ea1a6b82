"""A process loads torch for another one, answers its calls, and ends with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from imaging.errors import UserFault
from models.torch_process import TorchProcess
from models.training.process_group import ProcessDiedError
from tests import test_process_group
from tests.conftest import REPOSITORY, until

HERE = __name__


def echo(text: str) -> list[str]:
    print("what a library prints is no answer")
    return [text, str("torch" in sys.modules), str(os.getpid())]


def refuse() -> None:
    raise UserFault("use another one")


def die() -> None:
    print("out of something", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(_: int, __: int, ___: str, folder: str) -> None:
    (Path(folder) / "pid").write_text(str(os.getpid()))
    signal.pause()


@pytest.fixture(scope="module")
def process() -> Iterator[TorchProcess]:
    process = TorchProcess()
    yield process
    process.end()


@pytest.mark.slow
def test_it_has_loaded_torch_and_this_one_need_not(process: TorchProcess) -> None:
    assert process.call(f"{HERE}:echo", text="a\nb")[:2] == ["a\nb", "True"]


def test_calls_meet_the_same_process(process: TorchProcess) -> None:
    first, second = (process.call(f"{HERE}:echo", text="")[2] for _ in range(2))
    assert first == second


def test_what_a_person_can_mend_is_raised_as_it_is(process: TorchProcess) -> None:
    with pytest.raises(UserFault, match=r"^use another one$"):
        process.call(f"{HERE}:refuse")


def test_after_an_error_the_next_call_is_answered(process: TorchProcess) -> None:
    with pytest.raises(ProcessDiedError, match="No module named 'nowhere'"):
        process.call("nowhere:nothing")
    assert process.call(f"{HERE}:echo", text="again")[0] == "again"


def test_forks_of_it_compute_together(process: TorchProcess) -> None:
    assert process.call(f"{test_process_group.__name__}:tens", count=3, tens=4) == 43


@pytest.mark.slow
def test_its_death_is_an_error_with_what_it_wrote() -> None:
    process = TorchProcess()
    with pytest.raises(ProcessDiedError, match="out of something"):
        process.call(f"{HERE}:die")
    assert not process.runs


CALLER = f"""
from models.torch_process import TorchProcess
import sys
assert "torch" not in sys.modules
TorchProcess().call("{HERE}:sleep", count=2, folder=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_outlives_the_process_that_asks(tmp_path: Path, number: int) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    until((tmp_path / "pid").exists, "the forks")
    family = psutil.Process(caller.pid).children(recursive=True)
    caller.send_signal(number)
    caller.wait()
    assert len(family) == 3
    until(lambda: not any(map(psutil.Process.is_running, family)), "the end of all of them")
