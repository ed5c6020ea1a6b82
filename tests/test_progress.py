"""Progress: rate and expected end of work, as soon as they can be known."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.prefect import progress
from services.prefect.progress import Pace


def messages(*steps: tuple[float, int], total: int = 1000) -> list[str]:
    """Return the messages when so many files are done after so many seconds."""
    times: Iterator[float] = iter([0.0, *(seconds for seconds, _ in steps)])
    pace = Pace("files", lambda: next(times))
    return [pace.line(done, total) for _, done in steps]


def test_before_anything_is_done_the_total_is_shown() -> None:
    assert messages((0, 0)) == ["1,000 files to read"]


def test_the_start_of_workers_does_not_slow_the_rate() -> None:
    assert messages((60, 100), (70, 600))[-1] == "600/1000 files, 50 files/s, 8 s left"


def test_two_that_end_together_make_no_rate() -> None:
    assert messages((60, 100), (60.01, 200)) == ["100/1000 files", "200/1000 files"]


def test_at_the_end_all_of_the_time_counts() -> None:
    assert messages((60, 100), (100, 1000))[-1] == "1000/1000 files, 10 files/s, 0 s left"


def test_what_is_done_at_once_has_a_rate() -> None:
    assert messages((2, 10), total=10) == ["10/10 files, 5 files/s, 0 s left"]


def test_no_time_and_nothing_new_are_no_error() -> None:
    assert messages((0, 1000))[0].endswith("0 s left")
    assert messages((1, 100), (9, 100))[-1].startswith("100/1000 files, 0 files/s")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return the calls that create and update the artifact of Prefect's page."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        progress, "create_progress_artifact", lambda share, key, description: calls.append((key, share)) or 7
    )
    monkeypatch.setattr(
        progress, "update_progress_artifact", lambda bar, share, description: calls.append((bar, share))
    )
    return calls


def test_the_page_is_updated_now_and_then_and_at_the_end(
    page: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    on_progress = progress.progress("files", "bar", print)
    for seconds, done in ((0, 0), (1, 10), (3, 20), (4, 30), (5.5, 40), (6, 100)):
        now[0] = seconds
        on_progress(done, 100)
    assert page == [("bar", 20), (7, 40), (7, 100)]


def test_what_is_over_at_once_has_no_bar(page: list[tuple[Any, ...]]) -> None:
    on_progress = progress.progress("files", "bar", print)
    on_progress(0, 5)
    on_progress(5, 5)
    assert page == []


def test_lines_name_what_they_are_about(
    page: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    on_progress = progress.progress("files", "bar", progress.log_of("chest"))
    on_progress(0, 5)
    assert capsys.readouterr().out == "chest: 5 files to read\n"


def test_lines_reach_the_print_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    log = progress.log_of("chest")
    # As Prefect does while a run with log_prints goes on.
    monkeypatch.setattr("builtins.print", lines.append)
    log("epoch 1/2")
    assert lines == ["chest: epoch 1/2"]
