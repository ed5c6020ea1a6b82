"""Plain processes train together and leave one history and one checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException

from imaging.cores import available_cores
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples
from models.training.epoch_history import read_history
from models.training.launch import launch
from models.training.ranks import Ranks
from models.training.worker import TrainData


def tiny(count: int = 16) -> TrainData:
    draw = np.random.default_rng(0)
    rows = ArrayExamples(draw.integers(0, 256, (count, 16, 16), dtype=np.uint8), np.arange(count) % 2)
    return TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "lesion")))


@pytest.mark.slow
def test_two_processes_write_one_line_an_epoch(tmp_path: Path) -> None:
    launch(TrainConfig(network="small_cnn", epochs=2, batch_size=8, workers=2), tiny(), tmp_path)
    assert [row["epoch"] for row in read_history(tmp_path)] == [0, 1]


def test_the_checkpoint_is_in_the_returned_folder(tmp_path: Path) -> None:
    folder = launch(TrainConfig(network="small_cnn", epochs=1, batch_size=8, workers=1), tiny(), tmp_path)
    assert (folder / "best.safetensors").is_file()


@pytest.mark.slow
def test_a_fault_in_one_process_ends_all_and_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match="1 training images for 2 workers"):
        launch(TrainConfig(network="small_cnn", epochs=1, batch_size=8, workers=2), tiny(1), tmp_path)


def test_alone_a_total_is_the_value_itself() -> None:
    assert Ranks().total(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_alone_a_network_needs_no_synchronising() -> None:
    network = nn.Linear(1, 1)
    assert Ranks().synchronised(network) is network


@pytest.mark.parametrize(("rank", "leads"), [(0, True), (1, False)])
def test_the_first_rank_writes_for_all(rank: int, leads: bool) -> None:
    assert Ranks(rank=rank, size=2).leads is leads


def test_processes_of_one_machine_share_its_cores() -> None:
    before = torch.get_num_threads()
    try:
        Ranks(size=64, local_size=available_cores()).share_cores()
        assert torch.get_num_threads() == 1
        Ranks().share_cores()
        assert torch.get_num_threads() == available_cores()
    finally:
        torch.set_num_threads(before)
