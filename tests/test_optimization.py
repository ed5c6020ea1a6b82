"""Learning rates, optimizers, the average of weights, and running statistics."""

import pytest
import torch
from torch import nn

from models.config import OptimizerConfig
from models.training.optimization import (
    WeightAverage,
    l1_norm,
    learning_rate_at,
    make_optimizer,
    recalibrate,
    set_learning_rate,
)
from models.training.ranks import Ranks

ONE_CYCLE = OptimizerConfig(learning_rate=0.1)


def test_one_cycle_peaks_at_a_quarter() -> None:
    rates = [learning_rate_at(ONE_CYCLE, step, 101) for step in range(101)]
    assert max(rates) == rates[25] == pytest.approx(0.1)


def test_one_cycle_rises_and_then_falls() -> None:
    rates = [learning_rate_at(ONE_CYCLE, step, 101) for step in range(101)]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_one_cycle_ends_near_zero() -> None:
    assert learning_rate_at(ONE_CYCLE, 100, 101) < 1e-3 * 0.1


def test_a_run_of_one_step_has_a_learning_rate() -> None:
    assert learning_rate_at(ONE_CYCLE, 0, 1) > 0


def test_a_constant_learning_rate_is_constant() -> None:
    constant = OptimizerConfig(learning_rate=0.1, schedule="constant")
    assert {learning_rate_at(constant, step, 10) for step in range(10)} == {0.1}


def test_a_cosine_falls_from_the_start_to_zero() -> None:
    # Loshchilov and Hutter 2017, (5): half of it is left in the middle.
    cosine = OptimizerConfig(learning_rate=0.1, schedule="cosine")
    rates = [learning_rate_at(cosine, step, 101) for step in (0, 50, 100)]
    assert rates == [0.1, pytest.approx(0.05), pytest.approx(0)]


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_a_warm_up_rises_to_the_learning_rate(schedule: str) -> None:
    warm = OptimizerConfig.model_validate({"learning_rate": 0.1, "schedule": schedule, "warm_up": 0.1})
    rates = [learning_rate_at(warm, step, 101) for step in range(101)]
    assert rates[:11] == sorted(rates[:11])
    assert (rates[0], rates[10]) == (pytest.approx(0.004), pytest.approx(0.1))
    assert max(rates) == pytest.approx(0.1)


def test_one_cycle_without_a_warm_up_falls_at_once() -> None:
    rates = [
        learning_rate_at(OptimizerConfig(learning_rate=0.1, warm_up=0), step, 101) for step in range(101)
    ]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    network, target = nn.Linear(3, 1), torch.ones(8, 1)
    inputs = torch.randn(8, 3)
    optimizer = make_optimizer(network, OptimizerConfig(name=name, learning_rate=0.01))  # type: ignore[arg-type]
    losses = []
    for _ in range(5):
        loss = (network(inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_touches_matrices_and_spares_biases(name: str) -> None:
    network = nn.Linear(3, 2)
    config = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5)  # type: ignore[arg-type]
    optimizer, before = make_optimizer(network, config), network.bias.detach().clone()
    largest = network.weight.abs().max().item()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert network.weight.abs().max() < largest
    assert torch.equal(network.bias, before)


def test_the_learning_rate_is_set_for_every_group() -> None:
    optimizer = make_optimizer(nn.Linear(3, 2), OptimizerConfig())
    set_learning_rate(optimizer, 0.123)
    assert [group["lr"] for group in optimizer.param_groups] == [0.123, 0.123]


def test_l1_sums_kernels_without_biases() -> None:
    network = nn.Linear(2, 1)
    nn.init.constant_(network.weight, -2.0)
    nn.init.constant_(network.bias, 7.0)
    assert l1_norm(network).item() == 4.0


def test_without_decay_the_average_is_a_copy() -> None:
    network = nn.Linear(2, 1)
    average = WeightAverage(network, decay=0)
    nn.init.constant_(network.weight, 3.0)
    average.update(step=100)
    assert torch.equal(average.network.weight, network.weight)


def test_the_average_forgets_the_random_start_at_once() -> None:
    network = nn.Linear(2, 1)
    average = WeightAverage(network, decay=0.99)
    nn.init.constant_(network.weight, 3.0)
    average.update(step=0)
    assert torch.equal(average.network.weight, network.weight)


def test_late_steps_move_the_average_by_one_minus_the_decay() -> None:
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, 1.0)
    average = WeightAverage(network, decay=0.9)
    nn.init.constant_(network.weight, 2.0)
    average.update(step=10_000)
    assert average.network.weight.item() == pytest.approx(1.1)


def test_running_statistics_become_the_statistics_of_the_data() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1))
    batches = [torch.randn(64, 1, 8, 8) * 3 + 5 for _ in range(8)]
    recalibrate(network, batches, Ranks())
    whole = torch.cat(batches)
    assert network[0].running_mean.item() == pytest.approx(whole.mean().item(), abs=1e-3)
    assert network[0].running_var.item() == pytest.approx(whole.var().item(), rel=1e-2)


def test_recalibration_moves_no_weight() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    recalibrate(network, [torch.randn(4, 1, 8, 8)], Ranks())
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def test_a_network_without_running_statistics_asks_for_no_batch() -> None:
    recalibrate(nn.Linear(1, 1), (pytest.fail("a batch was loaded") for _ in range(1)), Ranks())
