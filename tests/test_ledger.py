"""Ledger: lines are whole or not there, and lines of every release are read."""

import errno
import json
import os
from pathlib import Path

import pytest

from imaging.errors import EnvironmentFault
from services import ledger
from services.ledger import add, champion_changes, entries
from services.settings import Settings

FIRST_RELEASE = (
    '{"time": "2026-11-01T02:00:00+00:00", "event": "promoted", "model": "ct", "candidate": 1, "champion": null, '
    '"gate.promote": "true", "gate.measure": "auroc", "gate.candidate": "0.936 (0.789-1.000)"}\n'
    '{"time": "2026-11-02T02:00:00+00:00", "event": "kept", "model": "ct", "candidate": 2, "champion": 1, '
    '"gate.promote": "false", "gate.measure": "auroc", "gate.candidate": "0.500 (0.400-0.600)"}\n'
)
"""As release 0.1.0 wrote it."""


def test_lines_of_the_first_release_are_read_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "ct.jsonl"
    path.write_text(FIRST_RELEASE)
    add(path, {"event": "promoted", "candidate": 3, "champion": 1, "training": "k"})
    assert path.read_text().startswith(FIRST_RELEASE)
    assert [line["candidate"] for line in entries(path)] == [1, 2, 3]
    assert [line["candidate"] for line in champion_changes(entries(path))] == [1, 3]


def test_an_event_of_a_later_release_changes_no_champion(tmp_path: Path) -> None:
    add(tmp_path / "ct.jsonl", {"event": "approved", "candidate": 3})
    assert champion_changes(entries(tmp_path / "ct.jsonl")) == []


def test_a_line_that_is_not_whole_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ct.jsonl"
    path.write_text(FIRST_RELEASE[:-20])
    with pytest.raises(EnvironmentFault, match=r"line 2 of the ledger .*ct\.jsonl is not whole"):
        entries(path)


def test_of_a_line_that_finds_no_room_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "ct.jsonl", os.write
    add(path, {"event": "kept", "candidate": 1})
    monkeypatch.setattr(os, "write", lambda to, content: write(to, content[:9]))
    with pytest.raises(EnvironmentFault, match=os.strerror(errno.ENOSPC)):
        add(path, {"event": "kept", "candidate": 2})
    monkeypatch.undo()
    add(path, {"event": "kept", "candidate": 3})
    assert [json.loads(line)["candidate"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_process_that_waits_for_another_prints_it_and_then_gives_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ledger, "NOTICE_S", 0)
    monkeypatch.setattr(ledger, "LOCK_TIMEOUT_S", 0.1)
    with (
        ledger.locked(settings, "ct"),
        pytest.raises(
            EnvironmentFault, match=r"another process has decided on the champion of ct .*: end it"
        ),
        ledger.locked(settings, "ct"),
    ):
        pass
    assert capsys.readouterr().out.startswith(
        "waiting for another process, which decides on the champion of ct"
    )
