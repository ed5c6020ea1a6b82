"""Record of the flow run of a command: whose process has ended, and which no longer says anything."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imaging.errors import EnvironmentFault
from services.prefect import server_process
from services.prefect.run_record import (
    RunRecord,
    abandoned_runs,
    check_home,
    record_of,
    remove_record,
    write_record,
)
from services.prefect.server_process import Repairs
from services.prefect.server_record import began


@pytest.fixture
def own(tmp_path: Path) -> RunRecord:
    """Return the record of a flow run of this process."""
    record = record_of("7b1c", "train")
    write_record(tmp_path, record)
    return record


@pytest.fixture
def dead() -> Iterator[RunRecord]:
    """Return the record of a process that has been killed and stays as a zombie."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = replace(record_of("9d2e", "nightly"), pid=process.pid, since_boot_s=began(process.pid))
    process.kill()
    while began(process.pid) >= 0:
        pass
    yield record
    process.communicate()


def test_a_run_whose_process_lives_is_not_abandoned(tmp_path: Path, own: RunRecord) -> None:
    assert abandoned_runs(tmp_path) == []


def test_a_run_whose_process_was_killed_is_abandoned(tmp_path: Path, own: RunRecord, dead: RunRecord) -> None:
    write_record(tmp_path, dead)
    assert abandoned_runs(tmp_path) == [dead]


def test_a_later_process_with_the_pid_is_another_one(tmp_path: Path, own: RunRecord) -> None:
    before = replace(own, since_boot_s=own.since_boot_s - 60)
    write_record(tmp_path, before)
    assert abandoned_runs(tmp_path) == [before]


def test_pids_of_another_host_mean_nothing(tmp_path: Path, dead: RunRecord) -> None:
    write_record(tmp_path, replace(dead, host="elsewhere"))
    assert abandoned_runs(tmp_path) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"flow_run": 1'])
def test_what_is_no_record_is_passed_over(tmp_path: Path, dead: RunRecord, content: str) -> None:
    write_record(tmp_path, dead)
    (tmp_path / "runs" / "other.json").write_text(content)
    assert abandoned_runs(tmp_path) == [dead]


def test_a_run_with_an_end_has_no_record(tmp_path: Path, dead: RunRecord) -> None:
    write_record(tmp_path, dead)
    remove_record(tmp_path, dead)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_home_that_cannot_be_written_gets_a_sentence(tmp_path: Path, dead: RunRecord) -> None:
    (tmp_path / "runs").write_text("in the way of the folder")
    with pytest.raises(
        EnvironmentFault, match=r"cannot write .*runs .*give --home a folder that can be written"
    ):
        write_record(tmp_path, dead)


def test_a_home_that_became_read_only_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_home(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(EnvironmentFault, match="cannot be written: is its disk mounted read-only"):
        check_home(tmp_path)


def test_the_server_begins_one_repair_for_a_killed_run(
    tmp_path: Path, dead: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    class Ended:
        def __init__(self, command: Any, env: Any) -> None:
            begun.append(env["PREFECT_API_URL"])

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(server_process, "REPAIR_S", 0.0)
    monkeypatch.setattr(server_process.subprocess, "Popen", Ended)
    repairs = Repairs(tmp_path, 4242)
    repairs.begin_where_due()
    write_record(tmp_path, dead)
    for _ in range(3):
        repairs.begin_where_due()
    assert begun == ["http://127.0.0.1:4242/api"]
