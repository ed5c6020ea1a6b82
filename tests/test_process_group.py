"""Forks compute together; where one fails all end, with what it raised."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from imaging.errors import UserFault
from models.training.process_group import ProcessDiedError, run_together


def tens(rank: int, count: int, _: str, tens: int) -> int:
    return 10 * tens + rank + count


def sign(rank: int, _: int, meet: str, folder: str) -> str:
    (Path(folder) / str(rank)).write_text(str(os.getpid()))
    return meet


def fail(rank: int, _: int, __: str, folder: str, how: str) -> None:
    """Let the second process fail while the first waits for it."""
    (Path(folder) / str(rank)).write_text(str(os.getpid()))
    if rank == 0:
        time.sleep(600)
    while not (Path(folder) / "0").exists():
        time.sleep(0.01)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise UserFault("use fewer workers") if how == "told" else ZeroDivisionError("by zero")


def call(function: str, *arguments: object, count: int = 2) -> object:
    return run_together(f"{__name__}:{function}", arguments, count)


def test_the_answer_of_the_first_is_returned() -> None:
    assert call("tens", 4) == 42


def test_each_process_is_another_one(tmp_path: Path) -> None:
    call("sign", str(tmp_path), count=3)
    assert len({path.read_text() for path in tmp_path.iterdir()} | {str(os.getpid())}) == 4


def test_they_can_meet_at_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    meet = Path(str(call("sign", str(tmp_path))).removeprefix("file://"))
    assert meet.is_absolute()
    assert not meet.parent.exists()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("told", UserFault, r"^use fewer workers$"),
        ("broken", ProcessDiedError, r"process 1 of 2 failed:[\s\S]*ZeroDivisionError: by zero"),
        ("killed", ProcessDiedError, "process 1 of 2 was killed"),
    ],
)
def test_the_failure_of_one_is_raised_and_ends_the_others(
    tmp_path: Path, how: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call("fail", str(tmp_path), how)
    assert not psutil.pid_exists(int((tmp_path / "0").read_text()))


def test_they_end_where_nobody_wants_the_answer_any_more(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(write)
    try:
        with pytest.raises(ProcessDiedError, match="has ended"):
            run_together(f"{__name__}:sleep", [str(tmp_path)], 1, stop=[read])
    finally:
        os.close(read)


def sleep(_: int, __: int, ___: str, ____: str) -> None:
    time.sleep(600)
