"""A second objective, as different from classification as can be: two values for each pixel, without labels.

It learns to give back the image (in -1..1) and its negative from one convolution. Nothing outside of this file and of
the tables that name objectives and sections knows it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.preprocess.slice import planes
from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.predictions import Floats, MeasureDefinition
from models.objectives.objective_catalog import OBJECTIVES
from models.objectives.protocol import Arrays, Objective, PatientExamples, Score, TrainingExamples
from models.portable.contract import Axis, TensorContract
from models.training.augment import Variation, apply
from models.training.batches import normalise
from models.training.launch import train_loop
from tasks.report.page import ExampleViews, GalleryImage, Section
from tasks.reporting import SECTIONS


@dataclass(frozen=True, eq=False, kw_only=True)
class PixelPredictions:
    """The squared error and the energy of each example, in the mean over its pixels."""

    squared: Floats
    energy: Floats
    patients: NDArray[np.str_]
    reported: ClassVar = ("explained", "error")
    repeated: ClassVar = frozenset()

    @property
    def measures(self) -> Mapping[str, MeasureDefinition]:
        return MEASURES

    def too_few_patients(self, least: int) -> str:
        count = len(np.unique(self.patients))
        return "" if count >= least else f"only {count} patients are tested and the gate asks for {least}."

    def useless(self) -> str:
        return ""

    def not_comparable(self, champion: "PixelPredictions") -> str:
        return "" if np.array_equal(self.patients, champion.patients) else "the two saw other patients."


def explained(predictions: PixelPredictions, weights: Floats) -> Floats:
    """Return the share of the energy that is explained."""
    return 1 - weights @ predictions.squared / (weights @ predictions.energy)


def error(predictions: PixelPredictions, weights: Floats) -> Floats:
    return np.sqrt(weights @ predictions.squared / weights.sum(axis=1))


MEASURES = {
    "explained": MeasureDefinition(title="Explained energy", values=explained),
    "error": MeasureDefinition(title="Pixel error", values=error, higher_is_better=False, decides=False),
}


@dataclass(frozen=True, kw_only=True)
class Pixels(Objective):
    """Two values for each pixel; `offset` is what calibration adds in the mean, and says that it was done."""

    name: ClassVar = "pixels"
    since: ClassVar = ""
    epoch_titles: ClassVar = {"explained": "Explained energy"}
    selectors: ClassVar = ("explained", "loss")
    measures: ClassVar = MEASURES
    report_sections: ClassVar = ("worst-pixels",)

    offset: float | None = None

    @classmethod
    def of_version(cls, version: DatasetVersion) -> Self:
        return cls()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        return cls(offset=json.loads(metadata["offset"] or "null"))

    def metadata(self) -> dict[str, str]:
        return {"offset": json.dumps(self.offset)}

    def outputs(self, spec: PreprocessSpec) -> tuple[TensorContract, ...]:
        axes = (
            Axis(name="batch"),
            Axis(name="kind", size=2, labels=("image", "negative")),
            Axis(name="row", size=spec.size_px),
            Axis(name="column", size=spec.size_px),
        )
        return (
            TensorContract(
                name="pixels", axes=axes, units="grey, -1 to 1", meaning="the image, its negative"
            ),
            TensorContract(name="level", axes=axes[:1], units="grey, -1 to 1", meaning="mean of the image"),
        )

    def build(self, network: str, channels: int) -> nn.Module:
        return PixelNetwork(channels)

    def targets(self, examples: TrainingExamples, index: NDArray[np.int64]) -> Arrays:
        return {"levels": planes(examples.gather(index)).astype(np.float32)}

    def vary(self, targets: Mapping[str, Tensor], variation: Variation) -> Mapping[str, Tensor]:
        return {"levels": apply(targets["levels"], variation)}

    def loss(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        image = normalise(targets["levels"])
        wanted = torch.cat([image, -image], dim=1)
        return (outputs["both"].float() - wanted).square().mean(dim=(1, 2, 3)).sum()

    def activate(self, outputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        both = outputs["both"].clamp(-1, 1)
        return {"pixels": both, "level": both[:, 0].mean(dim=(1, 2))}

    @property
    def score_size(self) -> int:
        return 2

    def score(self, outputs: Arrays, targets: Arrays) -> NDArray[np.float32]:
        image = targets["levels"][:, 0] / 127.5 - 1
        squared = (outputs["pixels"][:, 0] - image) ** 2
        return np.stack([squared.mean(axis=(1, 2)), (image**2).mean(axis=(1, 2))], axis=1).astype(np.float32)

    def epoch_measures(self, scores: NDArray[np.float32], examples: TrainingExamples) -> dict[str, float]:
        squared, energy = scores.astype(np.float64).sum(axis=0)
        return {"loss": float(squared) / len(scores), "explained": float(1 - squared / energy)}

    def merit(self, metrics: Mapping[str, float], selector: str) -> tuple[float, ...]:
        return (metrics["val_explained"] if selector == "explained" else -metrics["val_loss"],)

    def calibrated(self, score: Score, examples: TrainingExamples) -> Self:
        return replace(self, offset=float(score(examples)[:, 0].mean()))

    def predictions(
        self, scores: NDArray[np.float32], examples: PatientExamples, version: DatasetVersion
    ) -> PixelPredictions:
        squared, energy = scores.astype(np.float64).T
        return PixelPredictions(squared=squared, energy=energy, patients=examples.patient_keys)


class PixelNetwork(nn.Module):
    """One convolution; it returns its outputs by name."""

    def __init__(self, channels: int, outward: int = 2) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, outward, 3, padding=1, padding_mode="replicate")

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"both": self.convolution(image)}


def worst_pixels(
    candidate: PixelPredictions, champion: PixelPredictions | None, views: ExampleViews
) -> Section:
    """Return the test images with the largest errors, each beside what the model made of it."""
    worst = np.argsort(-candidate.squared, kind="stable")[:3]
    shown = zip(worst, views.images(worst), views.outputs(worst)["pixels"][:, 0], strict=True)
    return Section(
        title="Worst pixels",
        gallery=[
            GalleryImage(
                image=np.hstack([image, ((output + 1) * 127.5).astype(np.uint8)]),
                alt="Test image",
                headline=f"Error {candidate.squared[position] ** 0.5:.3f}",
                tone="wrong",
                lines=(),
            )
            for position, image, output in shown
        ],
    )


def register_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the objective and its section to the tables, for the time of a test."""
    monkeypatch.setitem(OBJECTIVES, Pixels.name, Pixels)
    monkeypatch.setitem(SECTIONS, "worst-pixels", worst_pixels)


def pixel_worker(config: dict[str, Any]) -> None:
    """Train as a worker of Ray, whose process has tables of its own."""
    OBJECTIVES[Pixels.name] = Pixels
    train_loop(config)
