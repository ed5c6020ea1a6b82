"""Measures of masks beside MONAI's and SimpleITK's, on random balls with lone pixels, in 2D and anisotropic 3D.

What differs must differ as it is explained in docs/segmentation.md; anything else fails.
"""

import sys
import warnings
from collections.abc import Iterator

import numpy as np
import SimpleITK
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric
from numpy.typing import NDArray

from imaging.statistics.intervals import value_of
from imaging.statistics.segmentation import SegmentationPredictions, case_numbers
from imaging.statistics.surface_distance import TOLERANCE_MM

Mask = NDArray[np.bool_]
GRIDS = (((64, 64), (0.7, 0.9)), ((12, 40, 40), (5.0, 0.8, 0.8)), ((24, 24, 24), (1.0, 1.0, 1.0)))
CASES = 40
EQUAL = 1e-4
"""MONAI computes distances in single precision."""


def cases() -> Iterator[tuple[Mask, Mask, tuple[float, ...]]]:
    draw = np.random.default_rng(0)
    for shape, spacing in GRIDS:
        places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) / np.array(shape)
        for _ in range(CASES):
            center, radius = draw.uniform(0.2, 0.8, len(shape)), draw.uniform(0.1, 0.4)
            truth = np.linalg.norm(places - center, axis=-1) < radius
            moved = center + draw.normal(0, 0.05, len(shape))
            predicted = np.linalg.norm(places - moved, axis=-1) < radius * draw.uniform(0.8, 1.2)
            yield truth, predicted ^ (draw.random(shape) < 0.002), spacing


def numbers(truth: Mask, predicted: Mask, spacing: tuple[float, ...]) -> SegmentationPredictions:
    one = case_numbers(truth.astype(np.uint8), predicted.astype(np.uint8), np.zeros(1, bool), spacing)
    return SegmentationPredictions(
        cases=one[None], voxel_ml=np.ones(1), patients=np.array(["p"]), classes=("organ",)
    )


def monai(truth: Mask, predicted: Mask, spacing: tuple[float, ...]) -> dict[str, float]:
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    measures = {
        "dice": (DiceMetric(include_background=True), {}),
        "hd95_mm": (HausdorffDistanceMetric(include_background=True, percentile=95), {"spacing": spacing}),
        "surface_dice": (SurfaceDiceMetric([TOLERANCE_MM], include_background=True), {"spacing": spacing}),
    }
    return {name: float(measure(*pair, **options)) for name, (measure, options) in measures.items()}


def simple_itk(truth: Mask, predicted: Mask, spacing: tuple[float, ...]) -> dict[str, float]:
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (truth, predicted)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    return {"dice": overlap.GetDiceCoefficient()}


def main() -> int:
    # MONAI warns of each empty mask.
    warnings.simplefilter("ignore")
    worst: dict[str, float] = {}
    for truth, predicted, spacing in cases():
        made = numbers(truth, predicted, spacing)
        own = {"dice": made.dice[0, 0], "hd95_mm": made.cases[0, 0, 3], "surface_dice": made.cases[0, 0, 4]}
        for library, measured in (("MONAI", monai), ("SimpleITK", simple_itk)):
            given = measured(truth, predicted, spacing)
            for name, value in given.items():
                key = f"{name} beside {library}"
                worst[key] = max(worst.get(key, 0.0), abs(float(own[name]) - value))
    print("| measure | largest difference |\n|---|---|")
    for name, value in worst.items():
        print(f"| {name}, {CASES * len(GRIDS)} cases | {value:.1e} |")
    empty, ball = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    ball[4:8, 4:8] = True
    print("\n| truth, prediction | ours: Dice, HD95, surface Dice | MONAI |\n|---|---|---|")
    for what, truth, predicted in (
        ("a miss", ball, empty),
        ("a false alarm", empty, ball),
        ("nothing in both", empty, empty),
    ):
        one = numbers(truth, predicted, (1.0, 1.0))
        ours = [one.dice[0, 0], *one.cases[0, 0, 3:]]
        theirs = monai(truth, predicted, (1.0, 1.0)).values()
        print(f"| {what} | {', '.join(f'{v:.3g}' for v in ours)} | {', '.join(f'{v:.3g}' for v in theirs)} |")
    missed = HausdorffDistanceMetric(include_background=True, percentile=95)
    for _ in range(3):
        missed(*(torch.from_numpy(mask)[None, None].float() for mask in (empty, ball)))
    mean = value_of(numbers(ball, empty, (1.0, 1.0)), "hd95_mm")
    print(f"| three misses, mean HD95 | {mean:.3g} | {float(missed.aggregate()):.3g} |")
    return 0 if max(worst.values()) < EQUAL else 1


if __name__ == "__main__":
    sys.exit(main())
