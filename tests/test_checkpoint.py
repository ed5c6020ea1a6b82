"""A resumed run ends with the same bits as one that was never interrupted."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from imaging.errors import EnvironmentFault
from models.config import OptimizerConfig, TrainConfig
from models.networks.catalog import build
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples
from models.training.checkpoint import best_network, restore, save
from models.training.epoch_history import Progress, last_checkpoint, read_history
from models.training.launch import keep_last
from models.training.loop import fit
from models.training.optimization import WeightAverage, make_optimizer
from models.training.ranks import Ranks
from models.training.worker import TrainData


class PowerCutError(Exception):
    """What ends a run in the middle."""


def tiny() -> TrainData:
    draw = np.random.default_rng(0)
    rows = ArrayExamples(draw.integers(0, 256, (24, 16, 16), dtype=np.uint8), np.arange(24) % 2)
    return TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "contrast")))


def run(config: TrainConfig, folder: Path, *, cut_after: int | None = None, resume: bool = False) -> None:
    def report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        keep_last(folder, metrics, checkpoint)
        if metrics["epoch"] == cut_after:
            raise PowerCutError

    fit(config, tiny(), Ranks(), folder, report, folder / "checkpoint" if resume else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        ("small_cnn", "adamw"),
        ("residual_small", "sgd"),
        ("residual_small", "adamw"),
        ("mobilenet_v3_small", "adamw"),
        ("residual_small", "muon"),
    ],
)
def test_interrupted_and_resumed_is_bit_identical(tmp_path: Path, network: str, optimizer: str) -> None:
    values = {
        "network": network,
        "epochs": 3,
        "batch_size": 8,
        "workers": 1,
        "optimizer": {"name": optimizer},
    }
    if optimizer == "muon":
        # With all that draws.
        values |= {"augment": {"mixup_alpha": 0.4, "flip_vertical": True}, "class_weights": "sampled"}
    config = TrainConfig.model_validate(values)
    run(config, tmp_path / "whole")
    with pytest.raises(PowerCutError):
        run(config, tmp_path / "cut", cut_after=0)
    run(config, tmp_path / "cut", resume=True)
    for part in ("network", "average", "best", "optimizer"):
        whole, cut = (tmp_path / name / "checkpoint" / f"{part}.safetensors" for name in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes(), part


@pytest.mark.slow
def test_the_history_of_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    config = TrainConfig(network="small_cnn", epochs=4, batch_size=8, workers=1)
    with pytest.raises(PowerCutError):
        run(config, tmp_path, cut_after=2)
    run(config, tmp_path, resume=True)
    assert [row["epoch"] for row in read_history(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_finished_run_resumes_into_nothing(tmp_path: Path) -> None:
    config = TrainConfig(network="small_cnn", epochs=2, batch_size=8, workers=1)
    run(config, tmp_path)
    before = (tmp_path / "checkpoint" / "network.safetensors").read_bytes()
    run(config, tmp_path, resume=True)
    assert (tmp_path / "checkpoint" / "network.safetensors").read_bytes() == before


def test_a_checkpoint_contains_safetensors_and_json_only(tmp_path: Path) -> None:
    run(TrainConfig(network="small_cnn", epochs=1, batch_size=8, workers=1), tmp_path)
    kinds = {path.suffix for path in (tmp_path / "checkpoint").iterdir()}
    assert kinds == {".safetensors", ".json"}


def test_the_best_network_has_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    run(TrainConfig(network="small_cnn", epochs=1, batch_size=8, workers=1), tmp_path)
    network = best_network(tmp_path / "checkpoint", tiny().objective, "small_cnn")
    stored = load_file(tmp_path / "checkpoint" / "best.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in network.state_dict().items())
    assert not network.training


def test_a_half_written_checkpoint_is_refused(tmp_path: Path) -> None:
    network = build("small_cnn", 2)
    optimizer = make_optimizer(network, OptimizerConfig())
    with pytest.raises(EnvironmentFault, match="no whole checkpoint"):
        restore(tmp_path, network, network, optimizer)


def test_moments_of_the_optimizer_keep_the_strides_of_their_weights(tmp_path: Path) -> None:
    network = build("residual_small", 2).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, OptimizerConfig())
    network(torch.randn(2, 1, 16, 16)).sum().backward()
    optimizer.step()
    average = WeightAverage(network, 0.9).network
    save(tmp_path, Progress(), network, average, network.state_dict(), optimizer)
    restore(tmp_path, network, average, optimizer)
    strides = [
        (weight.stride(), entry["exp_avg"].stride())
        for weight, entry in optimizer.state.items()
        if weight.ndim == 4
    ]
    assert strides and all(weight == moment for weight, moment in strides)


def test_progress_survives_json(tmp_path: Path) -> None:
    run(TrainConfig(network="small_cnn", epochs=2, batch_size=8, workers=1), tmp_path)
    stored = json.loads((tmp_path / "checkpoint" / "progress.json").read_text())
    assert stored["epochs"] == 2
    assert len(stored["best"]) == 2


@pytest.mark.parametrize("renamed", [0, 1], ids=["before the first rename", "between the renames"])
def test_a_crash_while_a_checkpoint_is_kept_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    for epochs in (1, 2):
        (tmp_path / str(epochs)).mkdir()
        Progress(epochs=epochs).write(tmp_path / str(epochs))
    keep_last(tmp_path, {}, tmp_path / "1")
    rename, calls = Path.rename, []

    def cut(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) > renamed:
            raise PowerCutError
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(Path, "rename", cut)
        keep_last(tmp_path, {}, tmp_path / "2")
    last = last_checkpoint(tmp_path)
    assert last is not None
    assert Progress.read(last).epochs == 1
    keep_last(tmp_path, {}, tmp_path / "2")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint"
    assert Progress.read(tmp_path / "checkpoint").epochs == 2


def test_before_the_first_epoch_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
