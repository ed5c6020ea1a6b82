"""Patches: which class they meet, where they may lie, and that nothing but seed, epoch and step decides."""

from collections import Counter

import numpy as np
import pytest
import torch

from imaging.errors import UserFault
from imaging.release_compatibility import canonical
from models.config import PatchConfig, TrainConfig
from models.training.patches import cropped, draw_patches, patch_origin, patch_shape
from tests.mask_examples import discs

MASKS = {"objective": "segmentation"}


def numbers(count: int) -> np.ndarray:
    return draw_patches(0, 0, 0, count)


def rare_and_frequent() -> np.ndarray:
    """Return a mask of 400 pixels of class 1 and a single one of class 2."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:20, :20], mask[50, 57], mask[:, 62:] = 1, 2, 255
    return mask


def test_a_class_of_one_pixel_is_met_as_often_as_a_large_one() -> None:
    mask = rare_and_frequent()
    met: Counter[int] = Counter()
    for drawn in numbers(400):
        row, column = patch_origin(mask, (8, 8), 1.0, drawn)
        met.update(set(np.unique(mask[row : row + 8, column : column + 8]).tolist()) & {1, 2})
    assert met[1] + met[2] == 400
    assert 160 < met[2] < 240


def test_as_many_patches_meet_a_class_as_the_share_asks_for() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[3, 3] = 1
    origins = [patch_origin(mask, (4, 4), 0.25, drawn) for drawn in numbers(2000)]
    met = [mask[row : row + 4, column : column + 4].any() for row, column in origins]
    assert np.mean(met) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(
    ("shape", "patch"), [((20, 30), (16, 16)), ((6, 20, 20), (3, 16, 16)), ((16, 16), (16, 16))]
)
def test_a_patch_lies_within_the_image(shape: tuple[int, ...], patch: tuple[int, ...], share: float) -> None:
    mask = np.ones(shape, np.uint8)
    origins = np.array([patch_origin(mask, patch, share, drawn) for drawn in numbers(200)])
    room = np.array(shape) - patch
    assert (origins >= 0).all() and (origins <= room).all()
    # Both ends are reached.
    assert (origins.min(axis=0) == 0).all() and (origins.max(axis=0) == room).all()


def test_an_image_without_a_class_gives_any_place() -> None:
    mask = np.where(rare_and_frequent() == 255, 255, 0).astype(np.uint8)
    origins = {tuple(patch_origin(mask, (8, 8), 1.0, drawn)) for drawn in numbers(50)}
    assert len(origins) > 40


def test_a_pixel_that_is_met_lies_anywhere_in_the_patch() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[32, 32] = 1
    rows = {32 - patch_origin(mask, (8, 8), 1.0, drawn)[0] for drawn in numbers(200)}
    assert rows == set(range(8))


def test_seed_epoch_and_step_alone_decide() -> None:
    assert np.array_equal(draw_patches(1, 2, 3, 8), draw_patches(1, 2, 3, 8))
    others = [draw_patches(*key, 8) for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4))]
    assert not any(np.array_equal(one, draw_patches(1, 2, 3, 8)) for one in others)


def test_workers_cut_the_patches_that_one_would_cut() -> None:
    examples, patch = discs(4, (32, 32)), PatchConfig(size_px=16)
    levels, targets = torch.from_numpy(examples.images[:, None]), {"masks": examples.drawn}
    images, whole = cropped(levels, targets, patch, numbers(4))
    part = slice(1, 3)
    own, masks = cropped(levels[part], {"masks": examples.drawn[part]}, patch, numbers(4)[part])
    assert torch.equal(images[part], own)
    assert np.array_equal(whole["masks"][part], masks["masks"])


@pytest.mark.parametrize(("shape", "slices"), [((32, 32), None), ((6, 32, 32), 4), ((6, 32, 32), None)])
def test_image_and_mask_are_cut_alike(shape: tuple[int, ...], slices: int | None) -> None:
    examples = discs(3, shape)
    levels = torch.from_numpy(examples.drawn if len(shape) == 3 else examples.drawn[:, None])
    targets = {"masks": examples.drawn, "unknown_classes": examples.unknown_classes}
    images, cut = cropped(levels, targets, PatchConfig(size_px=16, slices=slices), numbers(3))
    assert np.array_equal(images.numpy().reshape(cut["masks"].shape), cut["masks"])
    assert cut["masks"].shape[1:] == ((slices or 6,) if len(shape) == 3 else ()) + (16, 16)
    assert cut["unknown_classes"] is targets["unknown_classes"]


def test_a_patch_larger_than_the_images_is_refused() -> None:
    with pytest.raises(UserFault, match=r"a patch of 4 x 16 x 16 is larger than the images of 4 x 12 x 12"):
        patch_shape(PatchConfig(size_px=16), (4, 12, 12))


def test_examples_without_masks_have_no_patches() -> None:
    with pytest.raises(UserFault, match="these examples have none"):
        cropped(torch.zeros(1, 1, 32, 32), {"labels": np.zeros(1)}, PatchConfig(size_px=16), numbers(1))
    with pytest.raises(ValueError, match="classification has none: leave patch out"):
        TrainConfig.model_validate({"patch": {"size_px": 16}})


def test_a_training_without_patches_keeps_its_name() -> None:
    assert "patch" not in canonical(TrainConfig())
    patched = TrainConfig.model_validate(MASKS | {"patch": {"size_px": 32}})
    assert patched.digest != TrainConfig.model_validate(MASKS).digest
