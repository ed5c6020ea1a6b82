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
from models.networks.layers import is_of_volumes

COMPILERS = ("g++", "c++", "clang++")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def chosen_type(config: TrainConfig, network: nn.Module, device: torch.device) -> torch.dtype:
    """Return the type in which a network's layers compute; 'auto' is bf16 where this is faster and safe.

    That is on GPUs that have bf16, and on processors with AMX, where a step in fp32 takes 1.3 to 2.5 times as long. On
    other processors bf16 takes longer, up to ten times, and with AMX where convolutions are grouped, as in MobileNet
    and EfficientNet (`python -m bench.precision`). Raises UserFault for bf16 of volumes on a processor with AMX: torch
    2.14.1 writes outside its memory there, in the gradient of some convolutions.
    """
    of_volumes = is_of_volumes(network)
    has_amx = device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)
    if config.precision == "bf16" and has_amx and of_volumes:
        raise UserFault(
            "precision bf16 damages the memory of a training of volumes on processors with AMX (torch 2.14.1): "
            "use auto or fp32"
        )
    if config.precision != "auto":
        return TYPES[config.precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        grouped = any(getattr(layer, "groups", 1) > 1 for layer in network.modules())
        fast = has_amx and not of_volumes and not grouped
    return torch.bfloat16 if fast else torch.float32


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
