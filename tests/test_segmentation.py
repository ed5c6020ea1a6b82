"""Objective of masks: its loss, what it keeps of an example, and what it refuses."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.segmentation import CASE_NUMBERS
from models.config import TrainConfig
from models.objectives.objective_catalog import contract_of, file_metadata, objective_of
from models.objectives.segmentation import Segmentation
from models.objectives.segmentation_loss import example_losses, losses_of_probabilities
from models.portable.export import export_onnx, verify_export
from models.portable.predictor import Predictor
from tests.mask_examples import MaskArrays, PixelLogits, discs

BOTH = Segmentation(classes=("organ", "lesion"))
ONE = Segmentation(classes=("organ",))
GREY = PreprocessSpec.grey_levels(16)


def tensors(arrays: Any) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def targets_of(examples: MaskArrays) -> dict[str, Tensor]:
    return tensors(BOTH.targets(examples, np.arange(len(examples))))


# The loss


def by_definition(logits: np.ndarray, mask: np.ndarray, unknown: np.ndarray) -> float:
    """A second implementation of the loss of one example, pixel by pixel."""
    shifted = np.exp(logits - logits.max(axis=0))
    probabilities = shifted / shifted.sum(axis=0)
    anything_else = [0, *(np.flatnonzero(unknown) + 1)]
    entropies = []
    for at in zip(*np.nonzero(mask != 255), strict=True):
        number = mask[at]
        of_truth = [number] if number not in anything_else else anything_else
        entropies.append(-np.log(sum(probabilities[(one, *at)] for one in of_truth)))
    dices = []
    for number in np.flatnonzero(~unknown) + 1:
        called = probabilities[number][mask != 255]
        drawn = (mask == number)[mask != 255]
        dices.append((2 * (called * drawn).sum() + 1) / (called.sum() + drawn.sum() + 1))
    return float(np.mean(entropies) + (1 - np.mean(dices) if dices else 0))


@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 5)])
@pytest.mark.parametrize("unknown", [(False, False), (False, True), (True, True)])
def test_the_loss_is_dice_and_cross_entropy_of_what_is_known(
    shape: tuple[int, ...], unknown: tuple[bool, bool]
) -> None:
    draw = np.random.default_rng(1)
    numbers = [0, 255, *(k + 1 for k, one in enumerate(unknown) if not one)]
    masks = draw.choice(numbers, size=(2, *shape)).astype(np.uint8)
    logits = random_logits(2, 3, *shape)
    undrawn = np.array([unknown] * 2)
    given = example_losses(
        {"logits": logits}, {"masks": torch.from_numpy(masks), "unknown_classes": torch.from_numpy(undrawn)}
    )
    expected = [by_definition(*one) for one in zip(logits.numpy().astype(float), masks, undrawn, strict=True)]
    assert given.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_class_that_was_not_drawn_may_be_called_in_the_background() -> None:
    """Cross entropy alone would punish it; see Shi et al. 2021."""
    masks = torch.zeros((1, 4, 4), dtype=torch.uint8)
    lesion = torch.full((1, 3, 4, 4), -9.0)
    lesion[:, 2] = 9.0
    unknown = torch.tensor([[False, True]])
    assert example_losses({"logits": lesion}, {"masks": masks, "unknown_classes": unknown}).item() < 1e-3
    drawn = torch.tensor([[False, False]])
    assert example_losses({"logits": lesion}, {"masks": masks, "unknown_classes": drawn}).item() > 9


def test_an_image_of_unknown_pixels_has_no_loss_and_no_gradient() -> None:
    logits = random_logits(1, 3, 4, 4).requires_grad_()
    masks = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    loss = example_losses({"logits": logits}, {"masks": masks, "unknown_classes": torch.tensor([[True] * 2])})
    loss.sum().backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("unknown", [False, True])
def test_gradients_are_finite_where_probabilities_are_zero(unknown: bool) -> None:
    logits = (random_logits(1, 3, 4, 4) * 1e4).requires_grad_()
    targets = {"masks": torch.ones((1, 4, 4), dtype=torch.uint8)}
    targets["unknown_classes"] = torch.tensor([[False, unknown]])
    example_losses({"logits": logits}, targets).sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_half_the_size_weighs_half() -> None:
    examples = discs(2, (8, 8), classes=2)
    scales = {
        "logits": random_logits(2, 3, 8, 8),
        "logits_2": random_logits(2, 3, 4, 4),
        "logits_4": random_logits(2, 3, 2, 2),
    }
    targets = targets_of(examples)
    small = targets | {"masks": targets["masks"][:, 1::2, 1::2]}
    smallest = targets | {"masks": targets["masks"][:, 2::4, 2::4]}
    singly = [
        example_losses({"logits": logits}, one)
        for logits, one in zip(scales.values(), (targets, small, smallest), strict=True)
    ]
    expected = (singly[0] + singly[1] / 2 + singly[2] / 4) / 1.75
    torch.testing.assert_close(example_losses(scales, targets), expected)


def test_the_losses_of_ranks_add_up() -> None:
    targets = targets_of(discs(4, (8, 8), classes=2))
    logits = random_logits(4, 3, 8, 8)
    parts = [
        BOTH.loss({"logits": logits[part]}, {name: one[part] for name, one in targets.items()})
        for part in (slice(0, 3), slice(3, 4))
    ]
    torch.testing.assert_close(sum(parts), BOTH.loss({"logits": logits}, targets))


def test_the_loss_of_validation_is_that_of_training() -> None:
    examples = discs(3, (8, 8), classes=2)
    logits = random_logits(3, 3, 8, 8)
    given = losses_of_probabilities(logits.softmax(dim=1).numpy(), examples.drawn, examples.unknown_classes)
    torch.testing.assert_close(
        torch.from_numpy(given), example_losses({"logits": logits}, targets_of(examples))
    )


# What is kept, and what it becomes


def activated(masks: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Return probabilities of 0.8 for what the masks hold."""
    chosen = np.moveaxis(np.eye(classes + 1, dtype=np.float32)[masks], -1, 1)
    return {"probabilities": chosen * 0.7 + 0.3 / (classes + 1)}


@pytest.mark.parametrize("shape", [(12, 12), (4, 12, 12)])
def test_a_few_numbers_are_kept_of_an_example(shape: tuple[int, ...]) -> None:
    examples = discs(3, shape, classes=2)
    scores = BOTH.score(activated(examples.drawn, 2), BOTH.targets(examples, np.arange(3)))
    assert scores.shape == (3, BOTH.score_size) == (3, 2 + 2 * len(CASE_NUMBERS))
    made = BOTH.predictions(scores, examples, SimpleNamespace())  # type: ignore[arg-type]
    assert made.patients.tolist() == ["p0", "p0", "p1"]
    assert np.nanmin(made.dice) == 1 and np.nanmax(made.cases[..., 3]) == 0
    assert made.voxel_ml.tolist() == pytest.approx([0.002] * 3)


def test_distances_follow_the_spacing_of_each_case() -> None:
    examples = discs(1, (4, 12, 12), spacing_mm=(5.0, 1.0, 1.0))
    moved = np.roll(examples.drawn, 1, axis=1)
    moved[:, 0] = 0
    scores = ONE.score(activated(moved, 1), ONE.targets(examples, np.arange(1)))
    assert ONE.predictions(scores, examples, SimpleNamespace()).cases[0, 0, 3] == 5  # type: ignore[arg-type]


def test_without_a_spacing_no_distance_is_measured() -> None:
    examples = discs(2, (12, 12), spacing_mm=(np.nan, np.nan, np.nan))
    scores = ONE.score(activated(examples.drawn, 1), ONE.targets(examples, np.arange(2)))
    made = ONE.predictions(scores, examples, SimpleNamespace())  # type: ignore[arg-type]
    assert "hd95_mm" not in made.reported and (made.dice == 1).all()


def test_an_image_without_a_thickness_has_distances_but_no_volume() -> None:
    examples = discs(2, (12, 12), spacing_mm=(np.nan, 1.0, 1.0))
    scores = ONE.score(activated(examples.drawn, 1), ONE.targets(examples, np.arange(2)))
    made = ONE.predictions(scores, examples, SimpleNamespace())  # type: ignore[arg-type]
    assert "hd95_mm" in made.reported and "volume_difference_ml" not in made.reported


def test_an_epoch_is_measured_by_the_mean_dice_and_the_loss() -> None:
    examples, trained = discs(4, classes=2), replace(BOTH, training=True)
    called = examples.drawn.copy()
    called[called == 2] = 0
    outputs = activated(called, 2)
    measures = trained.epoch_measures(trained.score(outputs, BOTH.targets(examples, np.arange(4))), examples)
    assert measures["dice"] == pytest.approx(0.5, abs=0.1)
    losses = losses_of_probabilities(outputs["probabilities"], examples.drawn, examples.unknown_classes)
    assert measures["loss"] == pytest.approx(losses.mean())


def test_a_higher_dice_is_better_and_the_loss_decides_between_equal_ones() -> None:
    merits = [
        ONE.merit({"val_dice": dice, "val_loss": loss}, "dice")
        for dice, loss in ((0.9, 2), (0.8, 1), (0.8, 2))
    ]
    assert merits == sorted(merits, reverse=True)
    assert ONE.merit({"val_dice": np.nan, "val_loss": 1}, "dice") == (0, -1)
    assert ONE.merit({"val_dice": 0.1, "val_loss": 1}, "loss") == (-1,)


# The file


@pytest.mark.slow
@pytest.mark.parametrize("spec", [GREY, PreprocessSpec(kind="volume", slices=4, size_px=16)])
def test_the_file_gives_probabilities_with_the_axes_of_its_contract(spec: PreprocessSpec) -> None:
    torch.manual_seed(0)
    network = PixelLogits(3, volumes=spec.kind == "volume")
    model = export_onnx(network, spec, BOTH)
    assert verify_export(model, network, spec, BOTH) < 1e-4
    predictor = Predictor.load(model.SerializeToString())
    assert predictor.objective == BOTH
    (output,) = predictor.contract.outputs
    assert output.axes[1].labels == ("background", "organ", "lesion")
    assert output.shape == (None, 3, *spec.shape)
    given = predictor.predict_levels(np.zeros((2, *spec.shape), np.uint8))["probabilities"]
    assert given.shape == (2, 3, *spec.shape)
    assert given.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_objective_comes_back_from_a_files_metadata() -> None:
    metadata = file_metadata(BOTH, GREY)
    assert objective_of(metadata) == BOTH
    assert metadata["needs"] == "0.2.0"
    assert contract_of(BOTH, GREY).objective == "segmentation"


# What is refused


def test_a_number_that_no_class_has_is_refused() -> None:
    examples = discs(2)
    examples.drawn[1, 0, 0] = 3
    with pytest.raises(
        UserFault, match=r"holds the class number 3, and there are 2 classes.*ingest them again"
    ):
        BOTH.targets(examples, np.arange(2))
    BOTH.targets(examples, np.arange(1))


def test_unknown_pixels_are_no_wrong_number() -> None:
    examples = discs(2)
    examples.drawn[1, 0, 0] = 255
    assert BOTH.targets(examples, np.arange(2))["masks"].max() == 255


def test_a_class_that_nobody_drew_is_refused_before_training() -> None:
    examples = discs(3, classes=2)
    examples.unknown_classes[:, 1] = True
    with pytest.raises(UserFault, match="class 'lesion' is drawn in none of the 3 images of split 'train'"):
        BOTH.fitted(examples, TrainConfig(objective="segmentation", measure="dice"))


@pytest.mark.parametrize("empty", ["train", "val"])
def test_a_class_that_is_absent_from_a_split_is_refused(empty: str) -> None:
    whole, lacking = discs(3, classes=2), discs(3, classes=2)
    lacking.unknown_classes[:, 0] = True
    version = SimpleNamespace(examples=lambda split: lacking if split == empty else whole)
    with pytest.raises(UserFault, match=f"class 'organ' is drawn in none of the 3 images of split '{empty}'"):
        BOTH.check(version)  # type: ignore[arg-type]


def test_a_dataset_without_masks_is_refused() -> None:
    version: Any = SimpleNamespace(mask_classes=(), head=SimpleNamespace(dataset="d"))
    with pytest.raises(UserFault, match=r"has masks of 0 classes.*ingest with --masks"):
        Segmentation.of_version(version).check(version)


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    examples = discs(1)
    outputs = activated(examples.drawn, 1)
    outputs["probabilities"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserFault, match="its training diverged"):
        ONE.score(outputs, ONE.targets(examples, np.arange(1)))


def test_a_model_of_other_classes_does_not_predict_a_dataset() -> None:
    version: Any = SimpleNamespace(mask_classes=("lesion", "organ"))
    assert "knows the classes ['organ', 'lesion']" in BOTH.refusal(version)
    assert not Segmentation.of_version(version).refusal(version)
