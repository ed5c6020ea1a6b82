"""Segmentation: the class of each pixel of an image, or of each voxel of a volume, by Dice and cross entropy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.predictions import Floats
from imaging.statistics.segmentation import (
    CASE_NUMBERS,
    MEASURES,
    PER_CLASS,
    UNKNOWN_PIXEL,
    SegmentationPredictions,
    case_numbers,
)
from models.networks.catalog import build
from models.objectives.protocol import Arrays, MaskedExamples, Objective, PatientExamples, TrainingExamples
from models.portable.contract import ENTRY, Axis, Contract, TensorContract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from imaging.dataset.version.dataset_version import DatasetVersion
    from models.config import TrainConfig
    from models.training.augment import Variation

PROBABILITIES = "probabilities"
BACKGROUND = "background"
MOST_CLASSES = UNKNOWN_PIXEL - 1
KEPT = 2
"""Of each example the loss and the millilitres of a pixel are kept, before the numbers of its classes."""


@dataclass(frozen=True, kw_only=True)
class Segmentation(Objective):
    """The classes that are looked for; number 0 of a mask is the background, `classes[k]` is number k + 1."""

    name: ClassVar = "segmentation"
    since: ClassVar = "0.2.0"
    network_output: ClassVar = "masks"
    epoch_titles: ClassVar = {"dice": "Dice"}
    selectors: ClassVar = ("dice", "loss")
    measures: ClassVar = MEASURES
    report_sections: ClassVar = ("segmentation-classes", "worst-masks")

    classes: tuple[str, ...]
    training: bool = field(default=False, compare=False)
    """While it trains, the loss is kept of each example, and no surface is measured: that takes seconds a volume."""

    @classmethod
    def of_version(cls, version: "DatasetVersion") -> Self:
        """Return the segmentation into the classes of a version's masks."""
        return cls(classes=tuple(getattr(version, "mask_classes", ())))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Return the segmentation of a model: its contract names the classes behind the background."""
        (output,) = Contract.read(metadata[ENTRY]).outputs
        return cls(classes=output.axes[1].labels[1:])

    def check(self, version: "DatasetVersion") -> None:
        """Raise UserFault for a version without masks, or a class that is drawn in no image of a split."""
        if not 1 <= len(self.classes) <= MOST_CLASSES:
            raise UserFault(
                f"dataset {version.head.dataset!r} has masks of {len(self.classes)} classes, and segmentation takes 1 "
                f"to {MOST_CLASSES}: ingest with --masks"
            )
        for split in ("train", "val"):
            _check_drawn(self.classes, cast(MaskedExamples, version.examples(split)), split)

    def outputs(self, spec: PreprocessSpec) -> tuple[TensorContract, ...]:
        """Return the one output: the probability of the background and of each class, at each pixel."""
        names = (BACKGROUND, *self.classes)
        space = zip(("slice", "row", "column")[-len(spec.shape) :], spec.shape, strict=True)
        axes = (
            Axis(name="batch"),
            Axis(name="class", size=len(names), labels=names),
            *(Axis(name=name, size=size) for name, size in space),
        )
        meaning = (
            "probability of each class at each pixel of the model's grid; those of one pixel add up to 1"
        )
        return (TensorContract(name=PROBABILITIES, axes=axes, units="1", meaning=meaning),)

    def build(self, network: str, channels: int) -> "nn.Module":
        """Return the named network of the catalog with an output for the background and each class."""
        return build(network, 1 + len(self.classes), channels)

    def fitted(self, train: TrainingExamples, config: "TrainConfig") -> Self:
        """Return the segmentation as training needs it; raise UserFault for a class that nobody drew."""
        _check_drawn(self.classes, cast(MaskedExamples, train), "train")
        return replace(self, training=True)

    def targets(self, examples: TrainingExamples, index: NDArray[np.int64]) -> Arrays:
        """Return the masks, what was not drawn in them, and the spacing; raise UserFault for an unknown number."""
        masked = cast(MaskedExamples, examples)
        masks = masked.masks(index)
        _check_numbers(masks, len(self.classes))
        return {
            "masks": masks,
            "unknown_classes": masked.unknown_classes[index],
            "spacing_mm": masked.spacings_mm[index].astype(np.float32),
        }

    def vary(self, targets: "Mapping[str, Tensor]", variation: "Variation") -> "Mapping[str, Tensor]":
        """Return the masks moved as their images are; what came in from outside is unknown."""
        from models.training.augment import apply_to_mask

        return {**targets, "masks": apply_to_mask(targets["masks"], variation)}

    def loss(self, outputs: "Mapping[str, Tensor]", targets: "Mapping[str, Tensor]") -> "Tensor":
        """Return the sum of the losses; see `models.objectives.segmentation_loss`."""
        from models.objectives.segmentation_loss import example_losses

        return example_losses(outputs, targets).sum()

    def activate(self, outputs: "Mapping[str, Tensor]") -> "Mapping[str, Tensor]":
        """Return the probabilities (n, 1 + classes, [slices,] height, width)."""
        return {PROBABILITIES: outputs["logits"].softmax(dim=1)}

    @property
    def score_size(self) -> int:
        """A few numbers of each class: masks are not kept."""
        return KEPT + len(self.classes) * len(CASE_NUMBERS)

    def score(self, outputs: Arrays, targets: Arrays) -> NDArray[np.float32]:
        """Return the loss, NaN after training, the millilitres of a pixel, and the numbers of each class."""
        probabilities = outputs[PROBABILITIES]
        masks, unknown, spacings = targets["masks"], targets["unknown_classes"], targets["spacing_mm"]
        if not np.isfinite(probabilities).all():
            raise UserFault(
                "The model gave a probability that is not a number from 0 to 1: "
                "its training diverged; lower the learning rate."
            )
        scores = np.full((len(masks), self.score_size), np.nan, np.float32)
        if self.training:
            from models.objectives.segmentation_loss import losses_of_probabilities

            scores[:, 0] = losses_of_probabilities(probabilities, masks, unknown)
        scores[:, 1] = spacings.astype(np.float64).prod(axis=1) / 1000
        called = probabilities.argmax(axis=1).astype(np.uint8)
        for row, mask, one, undrawn, spacing in zip(scores, masks, called, unknown, spacings, strict=True):
            sides = spacing[-mask.ndim :].astype(np.float64)
            measured = None if self.training or np.isnan(sides).any() else sides.tolist()
            row[KEPT:] = case_numbers(mask, one, undrawn, measured).ravel()
        return scores

    def epoch_measures(self, scores: NDArray[np.float32], examples: TrainingExamples) -> dict[str, float]:
        """Return the loss, and the mean of Dice over the classes of the validation examples."""
        predictions = self._predictions(scores, np.full(len(scores), ""))
        dices = PER_CLASS["dice"](predictions, np.ones((1, len(scores))))[0]
        # A class that no validation example has, and none was called, says nothing.
        mean = float(np.nanmean(dices)) if np.isfinite(dices).any() else math.nan
        return {"loss": float(scores[:, 0].astype(np.float64).mean()), "dice": mean}

    def refusal(self, version: "DatasetVersion") -> str:
        """Return how the classes differ from those of a version's masks, or nothing; masks hold their numbers."""
        others = tuple(getattr(version, "mask_classes", ()))
        if self.classes == others:
            return ""
        return f"knows the classes {list(self.classes)} and the masks of the dataset have {list(others)}"

    def predictions(
        self, scores: NDArray[np.float32], examples: PatientExamples, version: "DatasetVersion"
    ) -> SegmentationPredictions:
        """Return what was measured of each example."""
        return self._predictions(scores, examples.patient_keys)

    def _predictions(
        self, scores: NDArray[np.float32], patients: NDArray[np.str_]
    ) -> SegmentationPredictions:
        cases: Floats = scores[:, KEPT:].astype(np.float64)
        return SegmentationPredictions(
            cases=cases.reshape(len(scores), len(self.classes), len(CASE_NUMBERS)),
            voxel_ml=scores[:, 1].astype(np.float64),
            patients=patients,
            classes=self.classes,
        )


def _check_numbers(masks: NDArray[np.uint8], classes: int) -> None:
    if masks.size == 0 or masks.max() <= classes:
        return
    if wrong := sorted(set(np.unique(masks).tolist()) - {*range(classes + 1), UNKNOWN_PIXEL}):
        raise UserFault(
            f"a mask holds the class number {wrong[0]}, and there are {classes} classes: 0 is the background, "
            f"{UNKNOWN_PIXEL} an unknown pixel, 1 to {classes} are classes; correct the masks and ingest them again"
        )


def _check_drawn(classes: tuple[str, ...], examples: MaskedExamples, split: str) -> None:
    """Raise UserFault for a class that was drawn in no image of a split."""
    undrawn = np.flatnonzero(examples.unknown_classes.all(axis=0))
    if undrawn.size:
        raise UserFault(
            f"class {classes[undrawn[0]]!r} is drawn in none of the {len(examples)} images of split {split!r}: draw it "
            "in images of more patients, or leave it out of --masks"
        )
