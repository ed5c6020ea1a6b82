"""The ledger: only ever added to, one line a decision."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from tasks.ledger import add, entries


def test_a_ledger_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert entries(tmp_path / "ledger.jsonl") == []


def test_decisions_are_kept_in_their_order(tmp_path: Path) -> None:
    for number in range(3):
        add(tmp_path / "made" / "ledger.jsonl", {"number": number})
    assert [entry["number"] for entry in entries(tmp_path / "made" / "ledger.jsonl")] == [0, 1, 2]


def test_a_line_tells_its_time_with_its_zone(tmp_path: Path) -> None:
    add(tmp_path / "ledger.jsonl", {})
    (entry,) = entries(tmp_path / "ledger.jsonl")
    assert datetime.fromisoformat(entry["time"]).tzinfo is not None


def test_what_was_written_is_never_touched(tmp_path: Path) -> None:
    add(tmp_path / "ledger.jsonl", {"number": 0})
    before = (tmp_path / "ledger.jsonl").read_bytes()
    add(tmp_path / "ledger.jsonl", {"number": 1})
    assert (tmp_path / "ledger.jsonl").read_bytes().startswith(before)


def test_a_line_break_in_a_value_is_no_new_line(tmp_path: Path) -> None:
    add(tmp_path / "ledger.jsonl", {"reason": "one\ntwo"})
    assert [entry["reason"] for entry in entries(tmp_path / "ledger.jsonl")] == ["one\ntwo"]


def test_those_who_write_at_once_lose_no_line(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(tmp_path / "ledger.jsonl", {"n": number}), range(64)))
    assert {entry["n"] for entry in entries(tmp_path / "ledger.jsonl")} == set(range(64))
