"""Owns the comparison of two registered models on the same locked test patients."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.example_set import Rows
from imaging.errors import UserFault
from imaging.statistics.classification import MEASURES, Predictions
from imaging.statistics.intervals import Measure, measure_all
from imaging.statistics.verdict import GateConfig, Verdict, decide
from models.portable.predictor import Predictor, predict_rows
from services.mlflow.registry import Registered, model_file
from services.settings import Settings

SHOWN = ("auroc", "auprc", "accuracy", "accuracy_argmax", "precision", "recall", "specificity", "f1", "brier")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a candidate, and the champion where there is one, said about the test patients."""

    candidate: Registered
    champion: Registered | None
    predictions: Predictions
    champion_predictions: Predictions | None
    measures: Mapping[str, Measure]
    champion_measures: Mapping[str, Measure]
    verdict: Verdict
    test_keys: NDArray[np.str_]
    settled: bool = False
    """Whether the candidate is the champion already, so that there is nothing to decide."""


def evaluate_pair(
    settings: Settings,
    candidate: Registered,
    champion: Registered | None,
    versions: Mapping[str, DatasetVersion],
    gate: GateConfig,
) -> Evaluation:
    """Let both models predict the test patients of the candidate's version, and decide.

    `versions` holds the dataset version for each preprocessing digest: the champion may expect another one.
    """
    test = versions[candidate.tags["spec.digest"]].locked_rows(
        f"evaluate {candidate.name} {candidate.version}"
    )
    settled = champion is not None and champion.version == candidate.version
    if settled:
        champion = None
    mine = predict(settings, candidate, versions[candidate.tags["spec.digest"]], test)
    theirs = None
    if champion is not None:
        theirs = predict(settings, champion, versions[champion.tags["spec.digest"]], test)
    verdict = decide(mine, theirs, gate)
    return Evaluation(
        candidate=candidate,
        champion=champion,
        predictions=mine,
        champion_predictions=theirs,
        measures=measured(mine, gate),
        champion_measures=measured(theirs, gate) if theirs else {},
        verdict=_settle(verdict, candidate) if settled else verdict,
        test_keys=test.instance_keys,
        settled=settled,
    )


def _settle(verdict: Verdict, candidate: Registered) -> Verdict:
    reason = f"version {candidate.version} is the champion already, and nothing newer was trained."
    return replace(verdict, promote=False, reason=reason)


def predict(settings: Settings, model: Registered, version: DatasetVersion, test: Rows) -> Predictions:
    """Return what the registered file itself says about the test rows, prepared as it expects them."""
    if set(model.classes) != set(version.classes):
        raise UserFault(
            f"version {model.version} of {model.name!r} knows the classes {list(model.classes)} and the dataset has "
            f"{list(version.classes)}: start another model with --name"
        )
    rows = test if version.digest == test.version_digest else version.rows_of(test.instance_keys)
    predictor = Predictor.load(model_file(settings, model))
    probabilities = predict_rows(predictor, rows)
    order = [model.classes.index(name) for name in version.classes]
    return Predictions(
        labels=rows.labels,
        probabilities=probabilities[:, order],
        patients=rows.patient_keys,
        classes=version.classes,
        threshold=model.threshold,
    )


def measured(predictions: Predictions, gate: GateConfig) -> dict[str, Measure]:
    """Return the measures that a report shows, each with its patient-bootstrap interval."""
    names = [name for name in SHOWN if name in MEASURES]
    return measure_all(predictions, names, draws=gate.draws, seed=gate.seed)


def metrics_of(measures: Mapping[str, Measure], prefix: str = "test") -> dict[str, float]:
    """Return measures with their limits under the names that MLflow shows."""
    limits: dict[str, float] = {}
    for name, measure in measures.items():
        numbers = {"": measure.value, "_lower": measure.lower, "_upper": measure.upper}
        limits |= {
            f"{prefix}_{name}{end}": float(value) for end, value in numbers.items() if np.isfinite(value)
        }
    return limits


def surest(predictions: Predictions, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions of the surest right calls and of the surest wrong ones, surest first."""
    called = predictions.predicted
    sureness = predictions.probabilities[np.arange(len(called)), called]
    order = np.argsort(-sureness, kind="stable")
    right = called[order] == predictions.labels[order]
    return order[right][:count], order[~right][:count]
