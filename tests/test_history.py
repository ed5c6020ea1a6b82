"""The history of a run has one line an epoch, whatever happened in between."""

from pathlib import Path

from models.training.history import HISTORY, read_history, record


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
