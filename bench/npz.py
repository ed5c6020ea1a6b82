"""NPZ files in benchmarks: read them, train by plain processes, and score the test part."""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imaging.preprocess.spec import PreprocessSpec
from imaging.statistics.classification import ClassPredictions
from imaging.statistics.intervals import value_of
from models.config import TrainConfig
from models.portable.export import export_onnx, verify_export
from models.portable.predictor import Predictor
from models.training.batches import ArrayExamples
from models.training.checkpoint import best_network
from models.training.launch import launch
from models.training.worker import TrainData

DATA = Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one seed gave on the test part."""

    seed: int
    measures: Mapping[str, float]
    train_s: float


def read(path: Path) -> dict[str, ArrayExamples]:
    """Return the parts of an NPZ in MedMNIST's layout."""
    with np.load(path, allow_pickle=False) as stored:
        parts = {name.removesuffix("_images") for name in stored if name.endswith("_images")}
        return {
            part: ArrayExamples(stored[f"{part}_images"], stored[f"{part}_labels"].ravel().astype(np.int64))
            for part in parts
        }


def run(config: TrainConfig, data: TrainData, test: ArrayExamples, folder: Path) -> Result:
    """Train, export, and read the test part once, through the portable model."""
    begun = time.perf_counter()
    checkpoint = launch(config, data, folder)
    train_s = time.perf_counter() - begun
    spec = PreprocessSpec.grey_levels(test.images.shape[1])
    network = best_network(checkpoint, data.objective, config.network)
    model = export_onnx(network, spec, data.objective)
    verify_export(model, network, spec, data.objective)
    predictions = ClassPredictions(
        labels=test.labels,
        probabilities=Predictor.load(model.SerializeToString()).score(test),
        patients=np.full(len(test), ""),
        classes=tuple(map(str, range(data.objective.score_size))),
    )
    measures = {name: value_of(predictions, name) for name in ("auroc", "accuracy_argmax", "log_loss")}
    return Result(seed=config.seed, measures=measures, train_s=train_s)


def table(presets: Mapping[str, TrainConfig], data: TrainData, test: ArrayExamples, title: str) -> None:
    """Run the seeds that the command line names, by one of the presets, and print a line for each and their mean."""
    options = argparse.ArgumentParser(description=title)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--preset", choices=list(presets), default=next(iter(presets)))
    options.add_argument("--workers", type=int)
    asked = options.parse_args()
    preset = presets[asked.preset]
    print(f"{title}\n{'seed':>6}{'AUROC':>10}{'accuracy':>10}{'log loss':>10}{'training, s':>13}")
    results = []
    for seed in asked.seeds:
        config = preset.model_copy(update={"seed": seed, "workers": asked.workers or preset.workers})
        with tempfile.TemporaryDirectory(prefix="radloop-bench-") as folder:
            results.append(run(config, data, test, Path(folder)))
        print(_line(str(seed), [*results[-1].measures.values(), results[-1].train_s]), flush=True)
    columns = zip(*([*result.measures.values(), result.train_s] for result in results), strict=True)
    print(_line("mean", [statistics.fmean(column) for column in columns]))


def _line(name: str, values: list[float]) -> str:
    auroc, accuracy, loss, seconds = values
    return f"{name:>6}{auroc:>10.4f}{accuracy:>10.4f}{loss:>10.4f}{seconds:>13.1f}"
