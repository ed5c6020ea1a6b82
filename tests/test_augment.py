"""Augmentation: parameters first, then a pure application."""

import math

import pytest
import torch
from torch import Tensor

from models.config import AugmentConfig
from models.training.augment import Variation, apply, draw
from models.training.batches import generator

OFF = AugmentConfig(shift_fraction=0, rotate_deg=0, scale=0, contrast=0, brightness=0)


def images(count: int = 6, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 1, size, size), generator=generator(1)).float()


def still(**changes: float) -> Variation:
    """Return parameters for one image that change nothing, but for `changes`."""
    neutral = {"mirror": 1.0, "angle_rad": 0.0, "scale": 1.0, "shift_x": 0.0, "shift_y": 0.0}
    values = {**neutral, "contrast": 1.0, "brightness": 0.0, **changes}
    return Variation(**{name: torch.tensor([value]) for name, value in values.items()})


def test_all_off_leaves_the_image() -> None:
    assert torch.allclose(apply(images(), draw(OFF, 6, generator(0))), images(), atol=1e-2)


def test_the_same_parameters_give_the_same_images() -> None:
    variation = draw(AugmentConfig(), 6, generator(0))
    assert torch.equal(apply(images(), variation), apply(images(), variation))


def test_slices_of_a_batch_are_varied_as_in_the_whole() -> None:
    variation = draw(AugmentConfig(flip=True), 6, generator(0))
    halves = [apply(images()[part], variation[part]) for part in (slice(0, 3), slice(3, 6))]
    assert torch.allclose(torch.cat(halves), apply(images(), variation), atol=1e-3)


def test_flip_mirrors_left_to_right() -> None:
    assert torch.allclose(apply(images(1), still(mirror=-1.0)), images(1).flip(3), atol=1e-2)


def test_a_shift_of_half_the_side_moves_by_as_much_and_brings_in_the_edge() -> None:
    moved = apply(images(1), still(shift_x=1.0))
    assert torch.allclose(moved[..., :8], images(1)[..., 8:], atol=1e-2)
    assert torch.allclose(moved[..., 8:], images(1)[..., -1:].expand(1, 1, 16, 8), atol=1e-2)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    turned = apply(images(1), still(angle_rad=math.pi / 2))
    # Towards which side does not matter, the draw is even on both.
    assert any(torch.allclose(turned, images(1).rot90(k, (2, 3)), atol=0.1) for k in (1, 3))


def test_scale_two_shows_the_middle_half() -> None:
    bright = torch.zeros(1, 1, 16, 16)
    bright[..., 6:10, 6:10] = 200
    assert apply(bright, still(scale=2.0)).sum().item() == pytest.approx(4 * bright.sum().item(), rel=0.05)


def test_contrast_keeps_the_mean() -> None:
    grey = images(1) / 4 + 96
    varied = apply(grey, still(contrast=1.3))
    assert varied.mean().item() == pytest.approx(grey.mean().item(), abs=0.01)
    assert varied.std().item() == pytest.approx(1.3 * grey.std().item(), rel=0.01)


def test_brightness_adds_levels() -> None:
    grey = images(1) / 4 + 96
    assert torch.allclose(apply(grey, still(brightness=10.0)), grey + 10, atol=1e-2)


def test_levels_stay_within_0_and_255() -> None:
    wild = AugmentConfig(contrast=0.9, brightness=0.9)
    varied = apply(images(50), draw(wild, 50, generator(0)))
    assert varied.min() >= 0
    assert varied.max() <= 255


def test_draws_stay_within_their_bounds() -> None:
    config = AugmentConfig(shift_fraction=0.1, rotate_deg=10, scale=0.2, contrast=0.3, brightness=0.1)
    drawn = draw(config, 2000, generator(0))
    bounds = {
        "angle_rad": (0, math.radians(10)),
        "scale": (1, 0.2),
        "shift_x": (0, 0.2),
        "shift_y": (0, 0.2),
        "contrast": (1, 0.3),
        "brightness": (0, 25.5),
    }
    for name, (middle, bound) in bounds.items():
        reach = (getattr(drawn, name) - middle).abs().max().item()
        assert 0.95 * bound < reach <= bound * 1.0001, name


def test_half_of_the_images_are_mirrored_where_that_is_on() -> None:
    mirrored = draw(AugmentConfig(flip=True), 1000, generator(0)).mirror == -1
    assert 0.4 < mirrored.float().mean() < 0.6


def test_no_image_is_mirrored_where_that_is_off() -> None:
    assert bool((draw(AugmentConfig(), 1000, generator(0)).mirror == 1).all())
