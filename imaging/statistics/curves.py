"""Curves of a classifier's trade-offs (ROC, precision and recall), as corners that straight lines join."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from imaging.statistics.classification import Flags, Floats, Predictions, ranked_counts

GRID = np.linspace(0, 1, 401)
"""Where the curves of many classes are averaged."""

Points = tuple[Floats, Floats]
Curve = Callable[[Flags, NDArray[np.floating]], Points]


def roc_curve(positive: Flags, scores: NDArray[np.floating]) -> Points:
    """Return false and true positive rates from (0, 0) to (1, 1), a corner for each distinct score.

    >>> roc_curve(np.array([True, False]), np.array([0.9, 0.1]))
    (array([0., 0., 1.]), array([0., 1., 1.]))
    """
    true, false = (counts[0] for counts in ranked_counts(positive, scores, np.ones((1, len(scores)))))
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def precision_recall_curve(positive: Flags, scores: NDArray[np.floating]) -> Points:
    """Return recall, rising from 0 to 1, and precision; the area below these steps is the average precision.

    >>> precision_recall_curve(np.array([True, False]), np.array([0.9, 0.1]))
    (array([0., 1., 1., 1.]), array([1. , 1. , 0.5, 0.5]))
    """
    true, false = (counts[0] for counts in ranked_counts(positive, scores, np.ones((1, len(scores)))))
    recall = np.append(0.0, np.repeat(true / true[-1], 2)[:-1])
    return recall, np.repeat(true / (true + false), 2)


def curves_of(predictions: Predictions, curve: Curve) -> list[Points]:
    """Return the curve of each one-versus-rest class that has both positive and negative examples."""
    members = [(k, predictions.labels == k) for k in predictions.one_versus_rest]
    return [curve(flags, predictions.probabilities[:, k]) for k, flags in members if 0 < flags.mean() < 1]


def mean_curve(curves: Sequence[Points]) -> Points:
    """Return the mean height of at least one curve over `GRID`."""
    mean: Floats = np.mean([np.interp(GRID, x, y) for x, y in curves], axis=0)
    return GRID, mean
