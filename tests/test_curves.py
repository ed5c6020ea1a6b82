"""The ROC and precision-recall curves against scikit-learn and against the areas."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as oracle

from imaging.statistics.classification import Predictions
from imaging.statistics.curves import GRID, curves_of, mean_curve, precision_recall_curve, roc_curve
from imaging.statistics.intervals import value_of


def tied(n: int = 80) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    generator = np.random.default_rng(4)
    positive = generator.uniform(size=n) < 0.4
    return positive, np.round(np.clip(0.3 * positive + generator.uniform(size=n) * 0.7, 0, 1), 1)


def three_classes(labels: NDArray[np.int64]) -> Predictions:
    raw = np.random.default_rng(2).uniform(size=(len(labels), 3)) + np.eye(3)[labels]
    return Predictions(
        labels=labels,
        probabilities=raw / raw.sum(axis=1, keepdims=True),
        patients=np.array([str(i) for i in range(len(labels))]),
        classes=("a", "b", "c"),
    )


def test_the_roc_has_scikit_learns_corners() -> None:
    x, y, _ = oracle.roc_curve(*tied(), drop_intermediate=False)
    assert np.array(roc_curve(*tied())) == pytest.approx(np.array([x, y]))


def test_the_area_below_the_roc_is_the_auroc() -> None:
    x, y = roc_curve(*tied())
    assert np.trapezoid(y, x) == pytest.approx(oracle.roc_auc_score(*tied()))


def test_the_area_below_precision_and_recall_is_the_average_precision() -> None:
    x, y = precision_recall_curve(*tied())
    assert np.trapezoid(y, x) == pytest.approx(oracle.average_precision_score(*tied()))


def test_recall_rises_from_none_to_all() -> None:
    recall, _ = precision_recall_curve(*tied())
    assert (recall[0], recall[-1]) == (0, 1)
    assert (np.diff(recall) >= 0).all()


def test_precision_ends_at_the_share_of_positives() -> None:
    positive, scores = tied()
    assert precision_recall_curve(positive, scores)[1][-1] == pytest.approx(positive.mean())


def test_two_classes_have_one_curve() -> None:
    predictions = Predictions(
        labels=np.array([0, 1]), probabilities=np.eye(2), patients=np.array(["x", "y"]), classes=("a", "b")
    )
    assert len(curves_of(predictions, roc_curve)) == 1


def test_a_class_without_examples_has_no_curve() -> None:
    assert len(curves_of(three_classes(np.array([0, 1, 0, 1])), roc_curve)) == 2


@pytest.mark.parametrize(("curve", "area"), [(roc_curve, "auroc"), (precision_recall_curve, "auprc")])
def test_the_area_below_the_mean_curve_is_the_macro_mean(curve: object, area: str) -> None:
    predictions = three_classes(np.random.default_rng(1).integers(3, size=300))
    x, y = mean_curve(curves_of(predictions, curve))
    assert x is GRID
    assert np.trapezoid(y, x) == pytest.approx(value_of(predictions, area), abs=0.005)
