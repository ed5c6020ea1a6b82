"""Progress of a run: one line of history an epoch, whatever happened in between, and the best epoch."""

from pathlib import Path

import pytest

from models.config import TrainConfig
from models.training.epoch_history import HISTORY, Progress, StepRecord, read_history, read_step, record


def test_epochs_come_back_in_order(tmp_path: Path) -> None:
    for epoch in range(3):
        record(tmp_path, {"epoch": epoch, "train_loss": 1 / (epoch + 1)})
    assert [row["train_loss"] for row in read_history(tmp_path)] == [1.0, 1 / 2, 1 / 3]


def test_an_epoch_done_again_replaces_its_line(tmp_path: Path) -> None:
    record(tmp_path, {"epoch": 0, "train_loss": 2.0})
    record(tmp_path, {"epoch": 0, "train_loss": 1.0})
    assert read_history(tmp_path) == [{"epoch": 0, "train_loss": 1.0}]


def test_going_back_drops_the_later_epochs(tmp_path: Path) -> None:
    for epoch in (0, 1, 2, 1):
        record(tmp_path, {"epoch": epoch})
    assert [row["epoch"] for row in read_history(tmp_path)] == [0, 1]


def test_a_run_without_an_epoch_has_an_empty_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "nothing") == []


def test_no_half_written_file_is_left(tmp_path: Path) -> None:
    record(tmp_path, {"epoch": 0})
    assert [path.name for path in tmp_path.iterdir()] == [HISTORY]


def test_a_better_epoch_becomes_the_best() -> None:
    progress = Progress().after((0.5,)).after((0.7,)).after((0.6,))
    assert (progress.epochs, progress.best_epoch, progress.best) == (3, 1, (0.7,))


def test_a_tie_keeps_the_earlier_epoch() -> None:
    assert Progress().after((0.5,)).after((0.5,)).best_epoch == 0


@pytest.mark.parametrize(("worse", "over"), [(2, False), (3, True)])
def test_patience_counts_epochs_without_a_better_one(worse: int, over: bool) -> None:
    progress = Progress().after((0.9,))
    for _ in range(worse):
        progress = progress.after((0.1,))
    assert progress.is_over(TrainConfig(epochs=100, patience=3)) is over


def test_a_run_is_over_after_its_last_epoch() -> None:
    assert Progress(epochs=5, best_epoch=4, best=(1.0,)).is_over(TrainConfig(epochs=5))


def test_how_far_an_epoch_is_is_written_now_and_then_by_the_first_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    leader, other = StepRecord(tmp_path, True, 0.0), StepRecord(tmp_path / "other", False, 0.0)
    seen = []
    for step in range(1, 6):
        now[0] += 0.9
        for one in (leader, other):
            one.add(2, step, 5, 18)
        seen.append(read_step(tmp_path))
    # 18 images in 0.9 s; written at 2.7 s and, 2 s later at the earliest, not before the end.
    line = {"epoch": 2, "step": 3, "steps": 5, "images_per_s": pytest.approx(20)}
    assert seen == [{}, {}, line, line, line]
    assert read_step(tmp_path / "other") == {}
