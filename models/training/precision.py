"""Precision of the forward pass: bf16 and fp16 by autocast, and the scaler that keeps gradients within fp16.

Written for GPUs and not yet run on one; tests run both on a processor.
"""

import shutil
from contextlib import AbstractContextManager
from typing import Any

import torch

from imaging.errors import EnvironmentFault, UserFault
from models.config import TrainConfig

COMPILERS = ("g++", "c++", "clang++")


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Return the autocast of the forward pass; 'auto' leaves processors at fp32, where bf16 is slower."""
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    reduced = config.precision == "bf16" or (config.precision == "auto" and fast)
    if config.precision == "fp16":
        return torch.autocast(device.type, torch.float16)
    return torch.autocast(device.type, torch.bfloat16, enabled=reduced)


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
