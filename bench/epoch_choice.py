"""Measures what the choice of an epoch on few validation patients gives on test patients, over made-up hospitals.

Each seed paints the demonstration's hospital anew (60 patients, 36 / 9 / 15 of them to train, validate and test, with
its window, 64 px) and trains by the default configuration in this process. The weights of every epoch are
judged on the validation patients, on the 15 test patients, and on 120 patients more, who say what it is worth. Rules of
choice then read the same epochs, so that their differences are paired by seed.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from imaging.phantom.anatomy import paint, sample_chest
from imaging.phantom.schedule import PhantomSpec, studies
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.training.batches import ArrayExamples, normalise
from models.training.checkpoint import AVERAGE
from models.training.epoch_history import read_history
from models.training.loop import fit
from models.training.ranks import Ranks
from models.training.worker import TrainData

OBJECTIVE = Classification(classes=("normal", "lesion"))
CENTER_HU, WIDTH_HU, SIZE_PX = -300, 1400, 64
SHARES = (36, 9, 15, 120)
"""Patients to train, to validate, to test, and to say what an epoch is worth."""
Rows = Sequence[Mapping[str, float]]


def hospital(seed: int) -> Iterator[ArrayExamples]:
    """Yield the examples of each share of a hospital's patients, half of whom have a lesion in each."""
    spec = PhantomSpec(seed=seed, patients=sum(SHARES))
    bounds = np.cumsum((0, *SHARES))
    for first, end in pairwise(bounds):
        images, labels = [], []
        for study in studies(spec, day=1):
            who = study.patient
            if first <= who.number < end:
                chest = sample_chest(np.random.default_rng([seed, who.number, 1]), lesion=who.lesion)
                rng = np.random.default_rng([seed, who.number, 2, study.number])
                slices = (paint(chest, SIZE_PX, rng)[0] for _ in range(spec.slices))
                images += [np.clip((hu - CENTER_HU) / WIDTH_HU + 0.5, 0, 1) * 255 for hu in slices]
                labels += [who.lesion] * spec.slices
        yield ArrayExamples(np.round(images).astype(np.uint8), np.array(labels, np.int64))


@torch.no_grad()
def scores(weights: Path, examples: ArrayExamples, config: TrainConfig) -> NDArray[np.float32]:
    network = OBJECTIVE.build(config.network, 1)
    network.load_state_dict(load_file(weights))
    levels = torch.from_numpy(examples.images)[:, None].float()
    return torch.cat([network.eval()(normalise(part)) for part in levels.split(64)]).softmax(1).numpy()


def epochs_of(seed: int, epochs: int) -> list[dict[str, float]]:
    """Return what each epoch of a hospital's training measured."""
    train, val, test, many = hospital(seed)
    config = TrainConfig(epochs=epochs, patience=epochs, workers=1, seed=seed)
    judged = list[dict[str, float]]()

    def judge(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        row = {}
        for name, examples in (("test", test), ("many", many)):
            measured = OBJECTIVE.epoch_measures(scores(checkpoint / AVERAGE, examples, config), examples)
            row |= {f"{name}_{measure}": value for measure, value in measured.items()}
        judged.append(row)

    with tempfile.TemporaryDirectory(prefix="radloop-bench-") as folder:
        data = TrainData(train=train, val=val, objective=OBJECTIVE)
        fit(config, data, Ranks(), Path(folder), judge)
        return [{**measured, **row} for measured, row in zip(read_history(Path(folder)), judged, strict=True)]


def best(name: str, rows: Rows, sign: int = 1, over: int = 1) -> int:
    """Return the epoch with the best mean of a measure over itself and those just before it."""
    values = np.array([row[name] for row in rows])
    means = [values[max(0, at - over + 1) : at + 1].mean() for at in range(len(values))]
    # Between equal ones the loss decides, as in training.
    return max(range(len(rows)), key=lambda at: (sign * means[at], -rows[at]["val_loss"]))


RULES: Mapping[str, Callable[[Rows], int]] = {
    "best AUROC": partial(best, "val_auroc"),
    "last epoch": lambda rows: len(rows) - 1,
    "least loss": partial(best, "val_loss", sign=-1),
    "best AUROC, mean of 3 epochs": partial(best, "val_auroc", over=3),
    "least loss, mean of 3 epochs": partial(best, "val_loss", sign=-1, over=3),
}


def table(runs: Sequence[Rows]) -> str:
    """Return the table: means over the seeds, and differences from the first rule with their standard errors."""
    lines = [
        "| rule | epoch | AUROC, 15 | AUROC, 120 | log loss, 120 | accuracy, 120 | AUROC - first | loss - first |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first = [rows[RULES["best AUROC"](rows)] for rows in runs]
    for name, rule in RULES.items():
        chosen = [rows[rule(rows)] for rows in runs]
        means = [
            np.mean([row[key] for row in chosen])
            for key in ("epoch", "test_auroc", "many_auroc", "many_loss", "many_accuracy")
        ]
        gains = [
            np.array([row[key] - other[key] for row, other in zip(chosen, first, strict=True)])
            for key in ("many_auroc", "many_loss")
        ]
        paired = [f"{gain.mean():+.4f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.4f}" for gain in gains]
        cells = [f"{means[0] + 1:.1f}", *(f"{mean:.4f}" for mean in means[1:]), *paired]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--kept", type=Path, help="file with the epochs of each seed, a line a seed")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        runs.append(epochs_of(seed, arguments.epochs))
        if arguments.kept:
            with arguments.kept.open("a") as file:
                file.write(f"{json.dumps(runs[-1])}\n")
    print(table(runs))


if __name__ == "__main__":
    main()
