"""Precision of the forward pass: bf16 and fp16 by autocast, and the scaler that keeps gradients within fp16.

The part for GPUs is written and not yet run on one; tests run both types on a processor.
"""

import shutil
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from imaging.errors import EnvironmentFault, UserFault
from models.config import TrainConfig

COMPILERS = ("g++", "c++", "clang++")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def chosen_type(config: TrainConfig, network: nn.Module, device: torch.device) -> torch.dtype:
    """Return the type in which a network's layers compute; 'auto' is bf16 where this is faster.

    GPUs that have bf16, and processors with AMX: 1.4 to 2.6 times as fast as fp32. Other processors take up to ten
    times as long with it, and those with AMX twice as long where convolutions are grouped, as all of MobileNet and
    EfficientNet (`python -m bench.precision`).
    """
    if config.precision != "auto":
        return TYPES[config.precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu.get_capabilities().get("amx_bf16", False) and not _has_grouped_convolution(network)
    return torch.bfloat16 if fast else torch.float32


def _has_grouped_convolution(network: nn.Module) -> bool:
    return any(getattr(layer, "groups", 1) > 1 for layer in network.modules())


def autocast(chosen: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Return the autocast of a forward pass in a type; fp32 is none."""
    return torch.autocast(device.type, chosen, enabled=chosen != torch.float32)


def gradient_scaler(config: TrainConfig, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaler of the loss, which skips steps that overflow and lowers its scale; off but for fp16."""
    return torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Raise UserFault for what processors cannot compute, EnvironmentFault where nothing compiles."""
    if config.compute.compile and not any(map(shutil.which, COMPILERS)):
        raise EnvironmentFault(
            f"compute.compile needs a C++ compiler and none of {', '.join(COMPILERS)} is there: install one, or turn "
            "it off"
        )
    if device.type == "cuda":
        return
    if config.precision == "fp16":
        raise UserFault(
            "precision fp16 needs a GPU and this worker computes on a processor: use auto, fp32 or bf16"
        )
    if config.compute.sync_batch_norm and config.workers > 1:
        raise UserFault(
            "compute.sync_batch_norm needs GPUs and this worker computes on a processor: turn it off, or use 1 worker"
        )
