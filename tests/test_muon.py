"""Muon makes updates of kernels orthogonal, and leaves the rest to AdamW."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.config import OptimizerConfig
from models.training.checkpoint import restore, save
from models.training.epoch_history import Progress
from models.training.muon import RMS, orthogonal
from models.training.optimization import make_optimizer

CONFIG = OptimizerConfig(name="muon", learning_rate=0.1, weight_decay=0)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("shape", [(6, 18), (18, 6), (5, 5)])
def test_singular_values_become_nearly_equal(shape: tuple[int, int]) -> None:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    # Keller Jordan's post gives the range 0.7 to 1.2 of its coefficients.
    values = torch.linalg.svdvals(orthogonal(drawn))
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_the_singular_vectors_are_kept() -> None:
    drawn = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(drawn, full_matrices=False)
    turned = left.T @ orthogonal(drawn) @ right.T
    assert (turned - turned.diag().diag()).abs().max() < 0.02


def moved(config: OptimizerConfig, number: int) -> Tensor:
    """Return what one step has added to a layer's kernel."""
    module = network()
    before = module[number].weight.detach().clone()  # type: ignore[index, union-attr, operator]
    step(module, make_optimizer(module, config))
    return module[number].weight.detach() - before  # type: ignore[index, union-attr, operator, no-any-return]


def test_a_kernel_moves_by_an_orthogonal_matrix() -> None:
    # As torch.optim.Muon with adjust_lr_fn="match_rms_adamw", Liu et al. 2025, (4): 0.2 sqrt(max(rows, columns)).
    values = torch.linalg.svdvals(moved(CONFIG, 0).flatten(1)) / (0.1 * RMS * 18**0.5)
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_it_moves_a_matrix_as_the_muon_of_torch_does() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Sequential(nn.Linear(5, 3, bias=False), nn.Linear(3, 2)), nn.Linear(5, 3, bias=False)
    theirs.load_state_dict(ours[0].state_dict())
    reference = torch.optim.Muon(
        theirs.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    optimizer = make_optimizer(ours, CONFIG.model_copy(update={"weight_decay": 0.1}))
    for _ in range(3):
        for layer, moves in ((ours[0], optimizer), (theirs, reference)):
            moves.zero_grad()
            (layer(torch.eye(5)) - 1).square().sum().backward()
            moves.step()
    # Theirs iterates in bf16.
    assert torch.allclose(ours[0].weight, theirs.weight, atol=0.02)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_the_layer_of_the_outputs_and_biases_are_left_to_adamw(part: str) -> None:
    first, second = network(), network()
    step(first, make_optimizer(first, CONFIG))
    step(second, make_optimizer(second, CONFIG.model_copy(update={"name": "adamw"})))
    assert torch.equal(getattr(first[-1], part), getattr(second[-1], part))  # type: ignore[index]


def test_it_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    whole = network()
    optimizer = make_optimizer(whole, CONFIG)
    step(whole, optimizer)
    save(tmp_path, Progress(), whole, whole, whole.state_dict(), optimizer)
    resumed = network()
    again = make_optimizer(resumed, CONFIG)
    restore(tmp_path, resumed, network(), again)
    step(whole, optimizer)
    step(resumed, again)
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))
