"""Predictions of a classifier and the measures of them.

Each measure maps example weights (draws, n) to values (draws,); see `imaging.statistics.predictions`. What a draw
does not define (no positive case in it, nothing called positive) is NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.statistics.predictions import Floats, MeasureDefinition, difference, no_better_than_chance

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassPredictions:
    """Class probabilities of n examples, beside their true classes.

    `labels` (n,) index into `classes`; `probabilities` are (n, classes); `patients` (n,) are patient keys.
    `threshold` is the probability of the positive class, `classes[1]`, from which a case is called positive;
    None calls the most probable class.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.floating]
    patients: NDArray[np.str_]
    classes: tuple[str, ...]
    threshold: float | None = None

    def __post_init__(self) -> None:
        n, k = len(self.labels), len(self.classes)
        if self.probabilities.shape != (n, k) or self.patients.shape != (n,) or k < 2:
            raise ValueError(
                f"{n} labels of {k} classes need probabilities ({n}, {k}) and {n} patients, "
                f"got {self.probabilities.shape} and {self.patients.shape}; at least 2 classes"
            )
        if n == 0:
            raise UserFault("There are 0 examples to measure; at least 1 is needed: enlarge the test split.")
        if self.labels.min() < 0 or self.labels.max() >= k:
            raise ValueError(
                f"labels reach from {self.labels.min()} to {self.labels.max()}, not 0 to {k - 1}"
            )
        if self.threshold is not None and k > 2:
            raise ValueError(f"a threshold of {self.threshold} needs 2 classes, there are {k}: pass None")
        if not np.all((self.probabilities >= 0) & (self.probabilities <= 1)):
            raise UserFault(
                "The model gave a probability that is not a number from 0 to 1: "
                "its training diverged; lower the learning rate."
            )

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class that each example is called, (n,)."""
        if self.threshold is None:
            return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)
        # In double precision: a threshold rounded to single could fall onto the score below it.
        return np.asarray(self.probabilities[:, 1].astype(np.float64) >= self.threshold, dtype=np.int64)

    @property
    def one_versus_rest(self) -> list[int]:
        """The classes that take the part of the positive one: the second of two, or each of many."""
        return [1] if len(self.classes) == 2 else list(range(len(self.classes)))

    @property
    def measures(self) -> Mapping[str, MeasureDefinition]:
        """The measures of a classifier."""
        return MEASURES

    @property
    def reported(self) -> tuple[str, ...]:
        """The measures that are shown and logged."""
        return REPORTED

    @property
    def repeated(self) -> frozenset[str]:
        """Without a threshold, a class is called by argmax, so both accuracies are one."""
        return frozenset({"accuracy_argmax"} if self.threshold is None else ())

    def too_few_patients(self, least: int) -> str:
        """Return which class has fewer than `least` patients, or nothing."""
        counts = [len(np.unique(self.patients[self.labels == k])) for k in range(len(self.classes))]
        fewest = int(np.argmin(counts))
        if counts[fewest] >= least:
            return ""
        return (
            f"the gate asks for {least} of each class among the test patients and '{self.classes[fewest]}' has "
            f"{counts[fewest]}; label more patients or lower min_patients."
        )

    def useless(self) -> str:
        """Return that it does no better than chance, or calls one class alone right, or nothing.

        Of two classes that is a sensitivity or a specificity of 0.
        """
        present = np.unique(self.labels)
        if len(present) < 2:
            return ""
        once = np.ones((1, len(self.labels)))
        if chance := no_better_than_chance(MEASURES, {"auroc": float(auroc(self, once)[0])}):
            return f"{chance}."
        missed = [k for k in present if not np.any(self.predicted[self.labels == k] == k)]
        if len(present) - len(missed) >= 2:
            return ""
        names = " or ".join(f"'{self.classes[k]}'" for k in missed)
        return f"it calls no image right that is {names}."

    def not_comparable(self, champion: "ClassPredictions") -> str:
        """Return why a champion of other classes or of other test examples cannot be compared, or nothing."""
        same = np.array_equal(self.labels, champion.labels) and np.array_equal(
            self.patients, champion.patients
        )
        examples = [len(champion.labels), len(self.labels)]
        return difference("classes", [champion.classes, self.classes], examples, same_examples=same)


def confusion(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the weighted counts (draws, classes, classes): rows are true classes, columns called ones."""
    k = len(predictions.classes)
    cell = predictions.labels * k + predictions.predicted
    in_cell = (cell[:, None] == np.arange(k * k)).astype(np.float64)
    counts: Floats = (weights @ in_cell).reshape(-1, k, k)
    return counts


def ranked_counts(positive: Flags, scores: NDArray[np.floating], weights: Floats) -> tuple[Floats, Floats]:
    """Return true and false positives, (draws, distinct scores) each, when all from a score up are called.

    Scores go from high to low, and tied scores are called together.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    drawn = weights[:, order]
    true = np.cumsum(drawn * positive[order], axis=1)[:, last_of_tie]
    # Not total minus true: with weights that are no integers the rest would not be an exact zero.
    false = np.cumsum(drawn * ~positive[order], axis=1)[:, last_of_tie]
    return true, false


def accuracy(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the share of examples that are called right, at the threshold."""
    return _mean(predictions.predicted == predictions.labels, weights)


def accuracy_argmax(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the share of examples whose most probable class is the true one."""
    return _mean(predictions.probabilities.argmax(axis=1) == predictions.labels, weights)


def precision(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the share of those called positive that are (the positive predictive value)."""
    true, false, _, _ = _outcomes(predictions, weights)
    return _macro(true, true + false)


def recall(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the share of positives that are called so (the sensitivity)."""
    true, _, missed, _ = _outcomes(predictions, weights)
    return _macro(true, true + missed)


def specificity(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the share of negatives that are called so."""
    _, false, _, rejected = _outcomes(predictions, weights)
    return _macro(rejected, rejected + false)


def f1(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the harmonic mean of precision and recall."""
    true, false, missed, _ = _outcomes(predictions, weights)
    return _macro(2 * true, 2 * true + false + missed)


def auroc(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the area under the receiver operating characteristic; a tie counts half."""
    return _one_versus_rest(area_under_roc, predictions, weights)


def auprc(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the average precision: the area under the steps of the precision-recall curve."""
    return _one_versus_rest(average_precision, predictions, weights)


def brier(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the mean squared error of the probabilities, at most 1 with two classes, else 2 (Brier 1950)."""
    truth = predictions.labels[:, None] == np.arange(len(predictions.classes))
    squared = (predictions.probabilities.astype(np.float64) - truth) ** 2
    return _mean(squared[:, predictions.one_versus_rest].sum(axis=1), weights)


def log_loss(predictions: ClassPredictions, weights: Floats) -> Floats:
    """Return the mean of minus the logarithm of the true class's probability, in nats."""
    of_truth = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    return _mean(-np.log(np.clip(of_truth.astype(np.float64), np.finfo(np.float64).eps, 1)), weights)


MEASURES: dict[str, MeasureDefinition] = {
    "auroc": MeasureDefinition(title="AUROC", values=auroc, chance=0.5),
    "auprc": MeasureDefinition(title="AUPRC", values=auprc),
    "accuracy": MeasureDefinition(title="Accuracy", values=accuracy),
    "accuracy_argmax": MeasureDefinition(title="Accuracy (argmax)", values=accuracy_argmax),
    "recall": MeasureDefinition(title="Recall (sensitivity)", values=recall),
    "specificity": MeasureDefinition(title="Specificity", values=specificity),
    "precision": MeasureDefinition(title="Precision (PPV)", values=precision),
    "f1": MeasureDefinition(title="F1", values=f1),
    "brier": MeasureDefinition(title="Brier score", values=brier, higher_is_better=False, decides=False),
    "log_loss": MeasureDefinition(title="Log loss", values=log_loss, higher_is_better=False, decides=False),
}
"""The measures by name. With many classes, measures of a positive class are macro means of one versus rest."""

REPORTED = (
    "auroc",
    "auprc",
    "accuracy",
    "accuracy_argmax",
    "precision",
    "recall",
    "specificity",
    "f1",
    "brier",
)


def best_threshold(labels: NDArray[np.int64], scores: NDArray[np.floating]) -> float:
    """Return the threshold of the largest Youden index, sensitivity + specificity - 1 (Youden 1950).

    `labels` (n,) are 0 or 1. The threshold lies midway between two neighbouring scores; of equally good ones
    it is the lowest, which misses fewest. Meant for validation data, never for the test part.

    >>> best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9]))
    0.4
    """
    positive = labels == 1
    if positive.all() or not positive.any():
        raise UserFault(
            f"All {len(labels)} validation examples are of one class; a threshold needs both: "
            "enlarge the validation split."
        )
    true, false = ranked_counts(positive, scores, np.ones((1, len(scores))))
    index = (true / true[:, -1:] - false / false[:, -1:])[0, ::-1]
    distinct = np.unique(scores.astype(np.float64))
    lower, upper = distinct[:-1], distinct[1:]
    middle = (lower + upper) / 2
    # Between neighbouring floats the middle may round down to the lower one, which it must exclude.
    cuts = np.concatenate([distinct[:1], np.where(middle > lower, middle, upper)])
    return float(cuts[index.argmax()])


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


def curves_of(predictions: ClassPredictions, curve: Curve) -> list[Points]:
    """Return the curve of each one-versus-rest class that has both positive and negative examples."""
    members = [(k, predictions.labels == k) for k in predictions.one_versus_rest]
    return [curve(flags, predictions.probabilities[:, k]) for k, flags in members if 0 < flags.mean() < 1]


def mean_curve(curves: Sequence[Points]) -> Points:
    """Return the mean height of at least one curve over `GRID`."""
    mean: Floats = np.mean([np.interp(GRID, x, y) for x, y in curves], axis=0)
    return GRID, mean


def _mean(values: NDArray[np.generic], weights: Floats) -> Floats:
    mean: Floats = weights @ values.astype(np.float64) / weights.sum(axis=1)
    return mean


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return the quotient, NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _macro(part: Floats, whole: Floats) -> Floats:
    mean: Floats = ratio(part, whole).mean(axis=1)
    return mean


def _outcomes(predictions: ClassPredictions, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return true positives, false positives, false negatives and true negatives, (draws, classes) each."""
    table = confusion(predictions, weights)
    true = np.diagonal(table, axis1=1, axis2=2)
    false, missed = table.sum(axis=1) - true, table.sum(axis=2) - true
    rejected = table.sum(axis=(1, 2))[:, None] - true - false - missed
    shown = predictions.one_versus_rest
    return true[:, shown], false[:, shown], missed[:, shown], rejected[:, shown]


def _one_versus_rest(
    measure: Callable[[Floats, Floats], Floats], predictions: ClassPredictions, weights: Floats
) -> Floats:
    per_class = [
        measure(*ranked_counts(predictions.labels == k, predictions.probabilities[:, k], weights))
        for k in predictions.one_versus_rest
    ]
    mean: Floats = np.mean(per_class, axis=0)
    return mean


def area_under_roc(true: Floats, false: Floats) -> Floats:
    """Return the area under the curve of `ranked_counts`, (draws,); a tie counts half."""
    before = np.pad(true, ((0, 0), (1, 0)))[:, :-1]
    area = (np.diff(false, axis=1, prepend=0) * (before + true)).sum(axis=1) / 2
    return ratio(area, true[:, -1] * false[:, -1])


def average_precision(true: Floats, false: Floats) -> Floats:
    """Return the average precision of `ranked_counts`, (draws,)."""
    called = true + false
    precision_there = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    return ratio((np.diff(true, axis=1, prepend=0) * precision_there).sum(axis=1), true[:, -1])
