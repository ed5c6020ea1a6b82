"""Checkpoints, from which a training run goes on as if it had never stopped: safetensors and JSON, never pickle.

A checkpoint is a folder: the network's weights, their moving average, the best average so far, the optimizer's
state, with fp16 the scaler's state, and `progress.json`. The learning rate and every random draw follow from the seed
and the number of epochs done, and running statistics are made anew each epoch, so nothing else is state.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imaging.errors import EnvironmentFault
from models.networks.weights_file import CLASSES, NETWORK_NAME
from models.objectives.protocol import Objective
from models.training.epoch_history import PROGRESS, Progress

NETWORK, AVERAGE, BEST, OPTIMIZER = (
    f"{part}.safetensors" for part in ("network", "average", "best", "optimizer")
)

SCALER = "scaler.json"

Weights = dict[str, Tensor]


def save(
    folder: Path,
    progress: Progress,
    network: nn.Module,
    average: nn.Module,
    best: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write a checkpoint into an existing folder; `progress.json` comes last and makes it whole."""
    _write(folder / NETWORK, network.state_dict())
    _write(folder / AVERAGE, average.state_dict())
    _write(folder / BEST, best)
    _write(folder / OPTIMIZER, _optimizer_tensors(optimizer))
    if scaler and scaler.is_enabled():
        (folder / SCALER).write_text(json.dumps(scaler.state_dict()))
    progress.write(folder)


def restore(
    folder: Path,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[Progress, Weights]:
    """Load a checkpoint into fresh parts of the same shape; return the progress and the best weights.

    Raises EnvironmentFault if the folder holds no whole checkpoint.
    """
    if not (folder / PROGRESS).is_file():
        raise EnvironmentFault(f"{folder} holds no whole checkpoint ({PROGRESS} is missing): train anew")
    network.load_state_dict(load_file(folder / NETWORK))
    average.load_state_dict(load_file(folder / AVERAGE))
    _load_optimizer(optimizer, load_file(folder / OPTIMIZER))
    if scaler and scaler.is_enabled():
        scaler.load_state_dict(json.loads((folder / SCALER).read_text()))
    return Progress.read(folder), load_file(folder / BEST)


def best_network(folder: Path, objective: Objective, name: str, channels: int = 1) -> nn.Module:
    """Return the network of the best epoch so far, ready to predict, on the CPU."""
    network = objective.build(name, channels)
    network.load_state_dict(load_file(folder / BEST))
    return network.eval()


def save_weights(weights: Mapping[str, Tensor], path: Path, name: str, metadata: Mapping[str, str]) -> None:
    """Write the weights of a network of the catalog, for others to start from; `metadata` are its portable file's."""
    description = {NETWORK_NAME: name} | {key: metadata[key] for key in (CLASSES,) if key in metadata}
    _write(path, weights, description)


def _write(path: Path, tensors: Mapping[str, Tensor], description: dict[str, str] | None = None) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, description)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Weights:
    """Name each tensor by its parameter's number and its own key; the rest follows from the configuration."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{key}": tensor
        for number, entry in state.items()
        for key, tensor in entry.items()
        if tensor is not None
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Weights) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Weights] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        like = parameters[int(number)]
        # Fused optimizers walk through memory: a moment needs the strides of its parameter (channels last).
        laid_out = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        state.setdefault(int(number), {})[key] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
