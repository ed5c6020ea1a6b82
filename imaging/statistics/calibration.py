"""Calibration: whether what is given a probability of 0.8 comes true in 8 of 10 cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.statistics.classification import ClassPredictions, Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Examples of similar probability: their mean probability, how often it came true, how many they are."""

    predicted: float
    observed: float
    count: int


def reliability(
    probabilities: NDArray[np.floating], came_true: Flags, bins: int = 10
) -> list[ReliabilityBin]:
    """Return bins of nearly equal counts, from low to high probability; both arguments are (n,).

    Equal probabilities share a bin, so that the result does not depend on the order of the examples.

    >>> reliability(np.array([0.1, 0.3, 0.7, 0.9]), np.array([False, False, True, True]), bins=2)[1]
    ReliabilityBin(predicted=0.8, observed=1.0, count=2)
    """
    values = probabilities.astype(np.float64)
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    number = np.searchsorted(edges, values)
    members = [number == b for b in range(len(edges) + 1)]
    return [
        ReliabilityBin(
            predicted=float(values[m].mean()), observed=float(came_true[m].mean()), count=int(m.sum())
        )
        for m in members
        if m.any()
    ]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean distance of predicted and observed, weighted by count (Naeini et al. 2015).

    >>> expected_calibration_error([ReliabilityBin(predicted=0.75, observed=0.5, count=4)])
    0.25
    """
    distances = [abs(b.predicted - b.observed) for b in bins]
    return float(np.average(distances, weights=[b.count for b in bins]))


def reliability_of(predictions: ClassPredictions, bins: int = 10) -> list[ReliabilityBin]:
    """Return the reliability of the positive class, or with many classes of the most probable one."""
    if len(predictions.classes) == 2:
        return reliability(predictions.probabilities[:, 1], predictions.labels == 1, bins)
    came_true = predictions.probabilities.argmax(axis=1) == predictions.labels
    return reliability(predictions.probabilities.max(axis=1), came_true, bins)
