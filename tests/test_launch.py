"""Plain processes train together and leave one history and one checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException

from imaging.cores import available_cores
from models.config import TrainConfig
from models.objectives.aggregation import AggregateConfig, Units
from models.objectives.classification import Classification
from models.objectives.protocol import TrainingExamples
from models.training.batches import ArrayExamples
from models.training.epoch_history import read_history
from models.training.launch import launch
from models.training.ranks import Ranks
from models.training.worker import TrainData


def tiny(count: int = 16) -> TrainData:
    draw = np.random.default_rng(0)
    rows = ArrayExamples(draw.integers(0, 256, (count, 16, 16), dtype=np.uint8), np.arange(count) % 2)
    return TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "lesion")))


def tiny_studies() -> TrainData:
    """Return examples of which every second pair is one study."""
    data, how = tiny(), AggregateConfig(over="study", rule="noisy-or")
    units = Units.of(
        np.arange(16) // 4 * 2 + np.arange(16) % 2, PatientArrays(data.val), "study", ("plain", "lesion")
    )
    return replace(data, objective=data.objective.aggregated(how), val_units=units)


class PatientArrays:
    """Examples of one patient."""

    def __init__(self, examples: TrainingExamples) -> None:
        self.labels, self.gather = examples.labels, examples.gather
        self.findings, self.patient_keys = np.empty((len(examples), 0), np.int8), np.full(len(examples), "p")


@pytest.mark.slow
def test_two_processes_write_one_line_an_epoch(tmp_path: Path) -> None:
    config = TrainConfig(network="small_cnn", epochs=2, batch_size=8, workers=2, precision="fp32")
    launch(config, tiny_studies(), tmp_path / "two")
    assert [row["epoch"] for row in read_history(tmp_path / "two")] == [0, 1]
    # Studies are measured alike by any number of processes.
    launch(config.model_copy(update={"workers": 1}), tiny_studies(), tmp_path / "one")
    for two, one in zip(*(read_history(tmp_path / name) for name in ("two", "one")), strict=True):
        assert two["val_auroc"] == one["val_auroc"]
        assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-5)


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
