"""Reliability bins and the calibration error."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from imaging.statistics.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    reliability,
    reliability_of,
)
from imaging.statistics.classification import ClassPredictions


def test_bins_have_equal_counts() -> None:
    bins = reliability(np.random.default_rng(0).uniform(size=1000), np.ones(1000, dtype=bool))
    assert [b.count for b in bins] == [100] * 10


def test_bins_rise_in_probability() -> None:
    predicted = [b.predicted for b in reliability(np.linspace(1, 0, 50), np.ones(50, dtype=bool))]
    assert predicted == sorted(predicted)


def test_a_bin_has_the_mean_probability_and_the_rate() -> None:
    bins = reliability(np.array([0.1, 0.3, 0.6, 1.0]), np.array([True, False, True, True]), bins=2)
    assert bins == [
        ReliabilityBin(predicted=pytest.approx(0.2), observed=0.5, count=2),
        ReliabilityBin(predicted=pytest.approx(0.8), observed=1.0, count=2),
    ]


def test_ties_share_a_bin_so_that_the_order_does_not_matter() -> None:
    probabilities = np.array([0.2] * 8 + [0.9] * 2)
    came_true = np.array([True, False] * 5)
    shuffled = np.random.default_rng(1).permutation(10)
    assert reliability(probabilities, came_true) == reliability(probabilities[shuffled], came_true[shuffled])


def test_one_probability_is_one_bin() -> None:
    assert [b.count for b in reliability(np.full(7, 0.5), np.ones(7, dtype=bool))] == [7]


def test_fewer_examples_than_bins_leave_no_empty_bin() -> None:
    assert [b.count for b in reliability(np.array([0.1, 0.9]), np.array([False, True]))] == [1, 1]


def test_honest_probabilities_have_a_small_error() -> None:
    generator = np.random.default_rng(2)
    probabilities = generator.uniform(size=20_000)
    bins = reliability(probabilities, generator.uniform(size=20_000) < probabilities)
    assert expected_calibration_error(bins) < 0.02


def test_overconfidence_is_measured() -> None:
    bins = reliability(np.full(100, 0.9), np.arange(100) < 60)
    assert expected_calibration_error(bins) == pytest.approx(0.3)


def test_the_error_weighs_bins_by_their_count() -> None:
    bins = [
        ReliabilityBin(predicted=0.5, observed=0.5, count=30),
        ReliabilityBin(predicted=0.9, observed=0.5, count=10),
    ]
    assert expected_calibration_error(bins) == pytest.approx(0.1)


def predictions(labels: ArrayLike, probabilities: ArrayLike) -> ClassPredictions:
    return ClassPredictions(
        labels=np.asarray(labels),
        probabilities=np.asarray(probabilities),
        patients=np.array([str(i) for i in range(np.size(labels))]),
        classes=tuple("abcdefg"[: np.shape(probabilities)[1]]),
    )


def test_two_classes_are_judged_by_the_positive_one() -> None:
    bins = reliability_of(predictions([0, 1], [[0.9, 0.1], [0.8, 0.2]]), bins=1)
    assert bins == [ReliabilityBin(predicted=pytest.approx(0.15), observed=0.5, count=2)]


def test_many_classes_are_judged_by_the_most_probable_one() -> None:
    bins = reliability_of(predictions([0, 1], [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]), bins=1)
    assert bins == [ReliabilityBin(predicted=pytest.approx(0.6), observed=0.5, count=2)]
