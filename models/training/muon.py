"""Muon: momentum whose update is made orthogonal, for kernels and matrices; AdamW takes all other weights.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the scale of the update, by which one learning rate and
one weight decay serve both parts, is that of Liu et al. 2025, https://arxiv.org/abs/2502.16982, (4). `torch.optim.Muon`
refuses convolutions; here a kernel is the matrix of its output channels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
"""Of the Newton-Schulz iteration, with coefficients for the steepest slope at 0, both of Jordan et al."""
RMS = 0.2
"""Root mean square of AdamW's usual updates."""


class Muon(torch.optim.AdamW):
    """AdamW but for groups with a `momentum`, whose parameters have two or more dimensions."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, fused=True)
        # Fused AdamW skips steps that overflow in fp16 by itself; here the scaler has to skip the whole step.
        self._step_supports_amp_scaling = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take in a state as any optimizer does: AdamW's looks for its own in every group."""
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all weights; the gradients of kernels and matrices are used up."""
        for group in self.param_groups:
            if "momentum" in group:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group)
                        # AdamW leaves out what has no gradient.
                        parameter.grad = None
        return super().step(closure)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        # Nesterov's look ahead.
        matrix = gradient.lerp(average, group["momentum"]).flatten(1)
        update = orthogonal(matrix).view(parameter.shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * RMS * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix (rows, columns) whose singular values are equal: they are from 0.7 to 1.2."""
    # Rounding does no harm to the iteration, and processors are slow with bf16.
    wide = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    tall = matrix.shape[0] > matrix.shape[1]
    wide = wide.T if tall else wide
    wide = wide / wide.norm().clamp(min=1e-7)
    first, second, third = COEFFICIENTS
    for _ in range(STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=second, alpha=third), wide, beta=first)
    return (wide.T if tall else wide).to(matrix.dtype).contiguous()
