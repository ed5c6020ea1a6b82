"""Measures the Dice of lesions that a 3D U-Net finds in made-up CT volumes of patients whom it has not seen.

A volume is a few slices of the phantom's chest, 5 mm apart; its lesion is a ball that some of them cut. The masks are
those of the portable file. Two processes; `python -m bench.phantom_lesions`.
"""

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from imaging.image.window import IDENTITY
from imaging.phantom.anatomy import FIELD_MM, paint, sample_chest
from imaging.preprocess.spec import PreprocessSpec
from models.config import TrainConfig
from models.objectives.segmentation import Segmentation
from models.portable.export import export_onnx, verify_export
from models.portable.predictor import Predictor
from models.training.checkpoint import best_network
from models.training.launch import launch
from models.training.worker import TrainData
from tests.mask_examples import MaskArrays

SIDE, SLICES, SPACING_MM = 96, 8, 5.0
DARKEST_HU, BRIGHTEST_HU = -1000.0, 200.0
TRAIN, VAL, TEST = 48, 4, 24
"""Patients, each with one volume."""
CONFIG = TrainConfig.model_validate(
    {
        "objective": "segmentation",
        "network": "unet_3d",
        "measure": "last",
        "epochs": 30,
        "batch_size": 4,
        "ema_decay": 0.9,
        "optimizer": {"learning_rate": 3e-3},
    }
)


def volumes(count: int, seed: int) -> MaskArrays:
    """Return volumes (count, slices, side, side) in the window, and masks of their lesions."""
    draw, shape = np.random.default_rng(seed), (count, SLICES, SIDE, SIDE)
    images, masks = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for image, mask in zip(images, masks, strict=True):
        chest = sample_chest(draw, lesion=True)
        assert chest.lesion is not None
        center, radius = draw.uniform(2, SLICES - 3), chest.lesion.a_mm
        for number in range(SLICES):
            cut = radius**2 - ((number - center) * SPACING_MM) ** 2
            lesion = replace(chest.lesion, a_mm=math.sqrt(cut), b_mm=math.sqrt(cut)) if cut > 0 else None
            hu, mask[number] = paint(replace(chest, lesion=lesion), SIDE, draw)
            levels = (hu - DARKEST_HU) / (BRIGHTEST_HU - DARKEST_HU) * 255
            image[number] = levels.round().clip(0, 255)
    pixel_mm = FIELD_MM / SIDE
    return MaskArrays(
        images=images,
        drawn=masks,
        patient_keys=np.array([f"p{number}" for number in range(count)]),
        unknown_classes=np.zeros((count, 1), bool),
        spacings_mm=np.tile([SPACING_MM, pixel_mm, pixel_mm], (count, 1)),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--epochs", type=int, default=CONFIG.epochs)
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = options.parse_args()
    data = TrainData(
        train=volumes(TRAIN, 1), val=volumes(VAL, 2), objective=Segmentation(classes=("lesion",))
    )
    test = volumes(TEST, 3)
    spec = PreprocessSpec(modality="OT", window=IDENTITY, size_px=SIDE, kind="volume", slices=SLICES)
    for seed in asked.seeds:
        config, begun = CONFIG.model_copy(update={"epochs": asked.epochs, "seed": seed}), time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="radloop-bench-") as folder:
            checkpoint = launch(config, data, Path(folder))
            network = best_network(checkpoint, data.objective, config.network, spec.channels)
        took = time.perf_counter() - begun
        model = export_onnx(network, spec, data.objective)
        verify_export(model, network, spec, data.objective)
        scores = Predictor.load(model.SerializeToString()).score(test)
        dice = data.objective.epoch_measures(scores, test)["dice"]
        print(
            f"seed {seed}: Dice {dice:.3f} of {TEST} lesions (0.85 is asked for), {took:.0f} s of training",
            flush=True,
        )


if __name__ == "__main__":
    main()
