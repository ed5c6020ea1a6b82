"""Reduced precision, its scaler, the faults of a device, and memory; all on a processor, none seen on a GPU yet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from imaging.errors import EnvironmentFault, UserFault
from models.config import ComputeConfig, OptimizerConfig, TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples
from models.training.checkpoint import SCALER, restore, save
from models.training.loop import train_step
from models.training.memory import batch_in_memory, peak_mb
from models.training.precision import autocast, check_device, chosen_type, gradient_scaler
from models.training.ranks import Ranks
from models.training.worker import TrainData, Worker

CPU = torch.device("cpu")
FP16 = TrainConfig(network="small_cnn", batch_size=8, workers=1, precision="fp16")


@pytest.fixture
def data() -> TrainData:
    draw = np.random.default_rng(0)
    rows = ArrayExamples(draw.integers(0, 256, (8, 16, 16), dtype=np.uint8), np.arange(8) % 2)
    return TrainData(train=rows, val=rows, objective=Classification(classes=("plain", "lesion")))


def on_cpu(config: TrainConfig, data: TrainData, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Return a worker that computes in fp16 on a processor, which no run may."""
    monkeypatch.setattr("models.training.worker.check_device", lambda config, device: None)
    return Worker.start(config, data, Ranks(), None)


def test_fp16_on_a_processor_is_refused_with_the_remedy(data: TrainData) -> None:
    with pytest.raises(UserFault, match=r"precision fp16 needs a GPU.*use auto, fp32 or bf16"):
        Worker.start(FP16, data, Ranks(), None)


def test_bf16_of_volumes_is_refused_where_it_damages_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    with pytest.raises(UserFault, match=r"volumes on processors with AMX.*use auto or fp32"):
        chosen_type(TrainConfig(precision="bf16"), torch.nn.Conv3d(1, 1, 1), CPU)
    assert chosen_type(TrainConfig(precision="bf16"), torch.nn.Conv2d(1, 1, 1), CPU) == torch.bfloat16


def test_common_batch_statistics_on_processors_are_refused() -> None:
    config = TrainConfig(compute=ComputeConfig(sync_batch_norm=True), workers=2)
    with pytest.raises(UserFault, match="sync_batch_norm needs GPUs"):
        check_device(config, CPU)
    check_device(config.model_copy(update={"workers": 1}), CPU)


def test_fp16_computes_in_fp16() -> None:
    layer = torch.nn.Linear(2, 2)
    with autocast(chosen_type(FP16, layer, CPU), CPU):
        assert layer(torch.zeros(1, 2)).dtype == torch.float16


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_step_of_fp16_is_nearly_that_of_fp32(
    data: TrainData, monkeypatch: pytest.MonkeyPatch, name: str, clip_norm: float
) -> None:
    optimizer = OptimizerConfig.model_validate({"name": name, "clip_norm": clip_norm, "learning_rate": 1e-3})
    weights = []
    for chosen in ("fp32", "fp16"):
        config = FP16.model_copy(update={"optimizer": optimizer, "precision": chosen})
        worker = on_cpu(config, data, monkeypatch)
        train_step(worker, 5, 0, np.arange(8))
        weights.append(torch.cat([p.detach().flatten() for p in worker.network.parameters()]))
    assert (weights[0] - weights[1]).abs().mean() < 1e-4


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_a_step_that_overflows_is_skipped_and_the_scale_falls(
    data: TrainData, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    optimizer = OptimizerConfig.model_validate({"name": name, "clip_norm": 1})
    worker = on_cpu(FP16.model_copy(update={"optimizer": optimizer}), data, monkeypatch)
    worker.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    before = [weights.detach().clone() for weights in worker.network.parameters()]
    for step in range(2):
        train_step(worker, 0, step, np.arange(8))
    assert worker.scaler.get_scale() == 2.0**118
    assert all(torch.equal(*pair) for pair in zip(before, worker.network.parameters(), strict=True))


def test_the_scale_is_part_of_a_checkpoint(
    data: TrainData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker = on_cpu(FP16, data, monkeypatch)
    worker.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    parts = (worker.network, worker.average.network)
    train_step(worker, 0, 0, np.arange(8))
    save(tmp_path, worker.progress, *parts, {}, worker.optimizer, worker.scaler)
    fresh = gradient_scaler(FP16, CPU)
    restore(tmp_path, *parts, worker.optimizer, fresh)
    assert (fresh.get_scale(), fresh.state_dict()["_growth_tracker"]) == (8.0, 1)
    assert json.loads((tmp_path / SCALER).read_text())["scale"] == 8.0


def test_without_fp16_the_scaler_is_off() -> None:
    assert not gradient_scaler(TrainConfig(precision="bf16"), CPU).is_enabled()


def test_a_batch_that_does_not_fit_is_a_fault_with_remedies() -> None:
    config = TrainConfig(batch_size=30, workers=2, optimizer=OptimizerConfig(accumulation=4))
    with (
        pytest.raises(UserFault, match=r"a pass of 4 images does not fit.*accumulation \(now 4\)"),
        batch_in_memory(config, CPU),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")


def test_memory_that_a_processor_does_not_have_is_such_a_fault() -> None:
    with pytest.raises(UserFault, match="does not fit in the memory of cpu"), batch_in_memory(FP16, CPU):
        torch.empty(2**60, dtype=torch.uint8)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), batch_in_memory(FP16, CPU):
        raise RuntimeError("shapes differ")


def test_the_peak_of_memory_is_that_of_the_process() -> None:
    assert 50 < peak_mb(CPU) < 100_000


def test_compilation_is_a_choice(data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))  # noqa: PLW0108 (bound)
    for chosen in (False, True):
        config = TrainConfig(network="small_cnn", workers=1, compute=ComputeConfig(compile=chosen))
        Worker.start(config, data, Ranks(), None)
    assert len(compiled) == 1


def test_without_a_compiler_compilation_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    config = TrainConfig(compute=ComputeConfig(compile=True))
    with pytest.raises(EnvironmentFault, match=r"needs a C\+\+ compiler.*install one, or turn it off"):
        check_device(config, CPU)
    check_device(TrainConfig(), CPU)
