"""Patient-level 5-fold AUROC on the real CT slices of ct-contrast: contrast against plain.

Each fold is predicted by a network trained on three others, with the epoch chosen on the fifth.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imaging.annotations.label_join import join_labels
from imaging.annotations.label_table import read_labels
from imaging.dataset.ingest.chunk import prepare_chunk
from imaging.dataset.ingest.prepare_files import FUNCTION
from imaging.dataset.split.assignment import assign
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.row_operations import refuse_repeats
from imaging.dataset.tables.shard import map_shard
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Pool
from imaging.sources.open_source import open_source
from imaging.statistics.classification import ClassPredictions
from imaging.statistics.intervals import measure_all
from imaging.store.folder_store import FolderStore
from models.config import AugmentConfig, OptimizerConfig, TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples, normalise
from models.training.checkpoint import best_network
from models.training.launch import launch
from models.training.worker import TrainData

FOLDS = [f"fold {number}" for number in range(1, 6)]
CLASSES = ("plain", "contrast")
OBJECTIVE = Classification(classes=CLASSES)
CONFIG = TrainConfig(
    network="residual_small",
    epochs=40,
    batch_size=16,
    optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=0.05),
    augment=AugmentConfig(shift_fraction=0.1, rotate_deg=10, scale=0.15, contrast=0.1, brightness=0.02),
    patience=40,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-px", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=CONFIG.epochs)
    arguments = parser.parse_args()
    started = time.perf_counter()
    images, labels, patients, folds = load(arguments.size_px)
    config = CONFIG.model_copy(update={"epochs": arguments.epochs})
    probabilities = np.zeros((len(labels), 2), np.float32)
    for number, fold in enumerate(FOLDS):
        test, val = folds == fold, folds == FOLDS[(number + 1) % 5]
        train = ~test & ~val
        data = TrainData(
            train=ArrayExamples(images[train], labels[train]),
            val=ArrayExamples(images[val], labels[val]),
            objective=OBJECTIVE,
        )
        probabilities[test] = predicted(config, data, images[test])
    predictions = ClassPredictions(
        labels=labels, probabilities=probabilities, patients=patients, classes=CLASSES
    )
    auroc = measure_all(predictions, ["auroc"])["auroc"]
    seconds = time.perf_counter() - started
    print(
        f"AUROC {auroc}, 5 folds by patient, {auroc.patients} patients, {len(labels)} images, {seconds:.0f} s"
    )


def load(size_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the images, labels, patients and folds of the data set, through the real ingest."""
    root = (
        Path(os.environ.get("RADLOOP_DATA", Path(__file__).parent.parent.parent / "shared/data"))
        / "ct-contrast"
    )
    secret, source = Pseudonyms(bytes(32)), open_source(root)
    table = read_labels(root / "labels.csv", secret)
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        spec = PreprocessSpec(size_px=size_px)
        with Pool(FUNCTION, {"spec": spec.model_dump_json()}) as workers:
            result = prepare_chunk(source, list(source.scan()), spec, secret, store, workers.map)
        every = LazyRows.of(result.examples)
        kept, _ = refuse_repeats(every, np.arange(every.num_rows), drop_equal_pixels=True)
        examples = kept.select(kept.schema.names)
        rows = zip(examples["shard"].to_pylist(), examples["row"].to_pylist(), strict=True)
        images = np.stack([map_shard(store, shard)[row] for shard, row in rows])
    named = join_labels(table, examples).labels.to_pylist()
    patients = np.array(examples["patient_key"].to_pylist())
    labels = np.array([CLASSES.index(name) for name in named])
    return images, labels, patients, folds_of(patients, named)


def folds_of(patients: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return the fold of each image: all of a patient's in one, the label sets distributed evenly."""
    names, of = np.unique(patients, return_inverse=True)
    sets: list[set[str]] = [set() for _ in names]
    for number, label in zip(of, labels, strict=True):
        sets[number].add(label)
    strata = np.unique(["|".join(sorted(labels_there)) for labels_there in sets], return_inverse=True)[1]
    # There is no finer stratum: sites are not known.
    both = np.stack([strata, strata + len(names)], axis=1)
    fold = assign(both, np.full(len(names), -1), [0.2] * len(FOLDS), np.arange(len(names)))
    return np.array(FOLDS)[fold[of]]


def predicted(config: TrainConfig, data: TrainData, images: np.ndarray) -> np.ndarray:
    """Train on two workers and return what the best epoch predicts for images."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        network = best_network(launch(config, data, Path(folder)), OBJECTIVE, config.network)
    with torch.no_grad():
        return network(normalise(torch.from_numpy(images).unsqueeze(1).float())).softmax(dim=1).numpy()


if __name__ == "__main__":
    main()
