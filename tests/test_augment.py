"""Augmentation: parameters first, then a pure application."""

import math

import pytest
import torch
from torch import Tensor

from imaging.preprocess.spec import MODALITIES
from models.config import AugmentConfig
from models.training.augment import Variation, apply, apply_to_mask, draw, draw_mixup
from models.training.batches import generator
from models.training.safe_augment import SAFE, safe_augment

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


def test_a_vertical_flip_mirrors_half_of_the_images_top_to_bottom() -> None:
    config = OFF.model_copy(update={"flip_vertical": True})
    varied = apply(images(), drawn := draw(config, 6, generator(1)))
    turned = drawn.mirror == -1
    assert 0 < turned.sum() < 6
    assert torch.allclose(varied[turned], images()[turned].flip(2), atol=0.1)
    assert torch.allclose(varied[~turned], images()[~turned], atol=0.1)


def test_flips_of_both_kinds_give_all_four_images() -> None:
    drawn = draw(OFF.model_copy(update={"flip": True, "flip_vertical": True}), 100, generator(0))
    turns = {(m.item(), round(a.item(), 2)) for m, a in zip(drawn.mirror, drawn.angle_rad, strict=True)}
    assert turns == {(1, 0), (-1, 0), (1, 3.14), (-1, 3.14)}


def test_without_a_vertical_flip_draws_are_as_before() -> None:
    first = draw(AugmentConfig(), 4, generator(0))
    second = draw(AugmentConfig(flip_vertical=True), 4, generator(0))
    assert torch.equal(first.brightness, second.brightness)
    assert torch.equal(first.scale, second.scale)


def halves(size: int = 16) -> Tensor:
    """Return a mask whose right half is of class 1."""
    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    mask[..., size // 2 :] = 1
    return mask


def test_a_mask_moves_with_its_image_and_is_unknown_from_outside() -> None:
    moved = apply_to_mask(halves(), still(shift_x=0.5))
    assert moved.dtype == torch.uint8
    assert torch.equal(moved[..., :12], halves()[..., 4:])
    assert set(moved[..., 12:].unique().tolist()) == {255}


@pytest.mark.parametrize("number", [0, 1, 37, 254, 255])
def test_a_mask_keeps_its_numbers(number: int) -> None:
    mask = torch.full((1, 8, 8), number, dtype=torch.uint8)
    assert torch.equal(apply_to_mask(mask, still()), mask)


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_of_bright_pixels_stays_on_them(seed: int) -> None:
    lesion = torch.zeros(1, 1, 32, 32)
    lesion[..., 8:20, 6:22] = 200
    wild = AugmentConfig(flip=True, flip_vertical=True, rotate_deg=180, contrast=0, brightness=0)
    variation = draw(wild, 1, generator(seed))
    image, mask = apply(lesion, variation), apply_to_mask((lesion[:, 0] > 0).to(torch.uint8), variation)
    assert ((image[0, 0] > 100) == (mask[0] == 1)).float().mean() > 0.98


def test_slices_of_a_volume_and_of_its_mask_move_alike() -> None:
    variation = draw(AugmentConfig(contrast=0, brightness=0), 2, generator(0))
    volumes = torch.randint(0, 256, (2, 1, 3, 16, 16), generator=generator(1)).float()
    varied = apply(volumes, variation)
    assert varied.shape == volumes.shape
    assert torch.allclose(varied[:, :, 1], apply(volumes[:, :, 1], variation), atol=1e-3)
    masks = (volumes[:, 0] > 128).to(torch.uint8)
    assert torch.equal(apply_to_mask(masks, variation)[:, 1], apply_to_mask(masks[:, 1], variation))


def test_a_quarter_turn_of_a_wide_image_keeps_its_pixels_square() -> None:
    bright = torch.zeros(1, 1, 16, 32)
    bright[..., 6:10, 12:20] = 200
    turned = apply(bright, still(angle_rad=math.pi / 2))
    assert torch.allclose(turned[..., 4:12, 14:18], torch.full((8, 4), 200.0), atol=1)
    assert turned.sum().item() == pytest.approx(bright.sum().item(), rel=0.01)


def test_mixup_keeps_a_share_and_pairs_every_image_once() -> None:
    shares = [draw_mixup(0.4, 9, seed)[0] for seed in range(200)]
    assert sorted(draw_mixup(0.4, 9, 3)[1].tolist()) == list(range(9))
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert torch.tensor(shares).var().item() == pytest.approx(1 / 7.2, rel=0.2)


@pytest.mark.parametrize("modality", ["CR", "DX", "CT", "MR", "PT", "IO", "PX", "OT", "unheard of"])
def test_what_has_a_left_and_a_right_is_not_mirrored(modality: str) -> None:
    safe = safe_augment(modality)
    assert not safe.flip
    assert not safe.flip_vertical
    assert safe.rotate_deg <= 15


@pytest.mark.parametrize("modality", ["SM", "GM", "ES", "DMS"])
def test_what_has_no_side_that_is_up_is_turned_by_any_angle(modality: str) -> None:
    safe = safe_augment(modality)
    assert (safe.flip, safe.flip_vertical, safe.rotate_deg) == (True, True, 180)


def test_the_table_has_defined_terms_alone() -> None:
    assert set(SAFE) <= set(MODALITIES)
