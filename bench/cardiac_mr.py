"""Measures Dice of the blood pool on real cine MR slices of four patients, leaving one patient out at a time.

The slices are taken in by `radloop ingest --masks`. A fold trains on three patients by a configuration that all folds
share and takes its last epoch, so that nothing is chosen on the patient who is left out; the portable file draws that
patient. `python -m bench.cardiac_mr 0` runs the first fold alone.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.statistics.intervals import measure_all
from imaging.store.folder_store import FolderStore
from models.config import TrainConfig
from models.objectives.segmentation import Segmentation
from models.portable.export import export_onnx
from models.portable.predictor import Predictor
from models.training.checkpoint import best_network
from models.training.epoch_history import CHECKPOINT
from models.training.launch import keep_last, launch
from models.training.worker import TrainData

DATA = Path(os.environ.get("RADLOOP_DATA", "../shared/data")) / "cardiac-mr"
SIZE_PX = 96
# Hearts lie as the scan planes are turned: the patients differ by a quarter turn, so that a fold needs all rotations.
CONFIG = TrainConfig.model_validate(
    {
        "objective": "segmentation",
        "measure": "last",
        "epochs": 120,
        "patience": 120,
        "batch_size": 8,
        "workers": 1,
        "ema_decay": 0.9,
        "optimizer": {"learning_rate": 0.003},
        "augment": {"flip": True, "rotate_deg": 180, "scale": 0.2, "contrast": 0.3, "brightness": 0.1},
    }
)
NAMES = ("dice[blood pool]", "dice[myocardium]", "patient_dice")


def ingested(home: Path) -> DatasetVersion:
    """Take the slices in, in a home of its own."""
    config = home / "config.yaml"
    config.write_text(f"preprocess: {{modality: MR, window: auto, size_px: {SIZE_PX}}}")
    command = [sys.executable, "-m", "cli.main", "-q", "--home", str(home / "home"), "ingest"]
    command += ["--source", str(DATA / "images"), "--masks", str(DATA / "masks.csv"), "--name", "cardiac"]
    command += ["--mask-classes", "blood pool,myocardium", "--config", str(config)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    version = newest_version(FolderStore(home / "home" / "store"), "cardiac")
    assert version is not None
    return version


def run_fold(version: DatasetVersion, left_out: str, folder: Path) -> str:
    """Train without a patient, and return what the portable file measures on that patient."""
    started = time.perf_counter()
    table = version.table("examples", ["instance_key", "patient_key"])
    keys, patients = (np.array(column.to_pylist()) for column in table.columns)
    train, test = (
        version.examples_of(keys[patients != left_out]),
        version.examples_of(keys[patients == left_out]),
    )
    objective = Segmentation.of_version(version)
    # What is validated is only shown: one image, as it costs time.
    data = TrainData(train=train, val=version.examples_of(train.instance_keys[:1]), objective=objective)
    launch(CONFIG, data, folder, lambda metrics, checkpoint: keep_last(folder, metrics, checkpoint))
    network = best_network(folder / CHECKPOINT, objective, CONFIG.network, version.spec.channels)
    model = export_onnx(network, version.spec, objective)
    scores = Predictor.load(model.SerializeToString()).score(test)
    measures = measure_all(objective.predictions(scores, test, version), NAMES, draws=200)
    values = ", ".join(f"{name} {measures[name].value:.3f}" for name in NAMES)
    return f"{values} ({len(train)} slices to train, {time.perf_counter() - started:.0f} s)"


def main(folds: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        version = ingested(Path(folder))
        patients = sorted(set(version.table("examples", ["patient_key"])["patient_key"].to_pylist()))
        for number in folds or range(len(patients)):
            print(
                f"fold {number}: {run_fold(version, patients[number], Path(folder) / str(number))}",
                flush=True,
            )


if __name__ == "__main__":
    main([int(one) for one in sys.argv[1:]])
