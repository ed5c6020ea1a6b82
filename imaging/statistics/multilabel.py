"""Predictions of findings, of which an image may have several, and the measures of each and of all in the mean.

Each measure maps example weights (draws, n) to values (draws,); see `imaging.statistics.predictions`. What is unknown
of an image is left out of the measures of that finding alone. A macro measure is the plain mean over all findings:
undefined (NaN) where one of them is, so that it never means another set of findings than it says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.statistics.classification import (
    Flags,
    area_under_roc,
    average_precision,
    ranked_counts,
    ratio,
)
from imaging.statistics.predictions import Floats, MeasureDefinition, difference, no_better_than_chance


@dataclass(frozen=True, slots=True)
class OneFinding:
    """Truth and probability of one finding in the images of which it is known, and the threshold of a call."""

    present: Flags
    probabilities: NDArray[np.float64]
    threshold: float

    @property
    def called(self) -> Flags:
        """Whether each image is called to have it."""
        return self.probabilities >= self.threshold


Measured = Callable[[OneFinding, Floats], Floats]


@dataclass(frozen=True, eq=False, kw_only=True)
class FindingPredictions:
    """Probabilities of findings in n examples, beside what is true.

    `truth` (n, findings) is 1 where a finding is present, 0 where it is absent, -1 where that is unknown;
    `probabilities` are (n, findings); `patients` (n,) are patient keys. From `thresholds` (findings,) on an image is
    called to have a finding.
    """

    truth: NDArray[np.int8]
    probabilities: NDArray[np.floating]
    patients: NDArray[np.str_]
    findings: tuple[str, ...]
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        n, f = len(self.patients), len(self.findings)
        if self.truth.shape != (n, f) or self.probabilities.shape != (n, f) or len(self.thresholds) != f:
            raise ValueError(
                f"{n} patients and {f} findings need truth and probabilities ({n}, {f}) and {f} thresholds, got "
                f"{self.truth.shape}, {self.probabilities.shape} and {len(self.thresholds)}"
            )
        if n == 0:
            raise UserFault("There are 0 examples to measure; at least 1 is needed: enlarge the test split.")
        if not np.isin(self.truth, (-1, 0, 1)).all():
            raise ValueError(
                f"truth is 1, 0 or -1, and reaches from {self.truth.min()} to {self.truth.max()}"
            )
        if not np.all((self.probabilities >= 0) & (self.probabilities <= 1)):
            raise UserFault(
                "The model gave a probability that is not a number from 0 to 1: "
                "its training diverged; lower the learning rate."
            )

    def known(self, finding: int) -> Flags:
        """Return the mask of the examples of which a finding is known."""
        return self.truth[:, finding] >= 0

    def one(self, finding: int) -> OneFinding:
        """Return what is known and predicted of one finding."""
        rows = self.known(finding)
        # In double precision: a threshold rounded to single could fall onto the score below it.
        values = self.probabilities[rows, finding].astype(np.float64)
        return OneFinding(self.truth[rows, finding] == 1, values, self.thresholds[finding])

    def count_patients(self, finding: int) -> dict[str, int]:
        """Return of how many patients a finding is known as present and as absent."""
        sides = {"present": 1, "absent": 0}
        return {
            side: len(np.unique(self.patients[self.truth[:, finding] == value]))
            for side, value in sides.items()
        }

    @cached_property
    def measures(self) -> Mapping[str, MeasureDefinition]:
        """The macro measures, and those of each finding, such as "auroc[effusion]"."""
        return MEASURES | {
            f"{name}[{finding}]": MeasureDefinition(
                title=f"{of_one.title} of {finding}",
                values=partial(_of_finding, of_one.measure, number),
                higher_is_better=of_one.higher_is_better,
                decides=of_one.decides,
                rows=partial(_known, number),
                too_few=partial(_too_few, number),
            )
            for name, of_one in OF_ONE.items()
            for number, finding in enumerate(self.findings)
        }

    @property
    def reported(self) -> tuple[str, ...]:
        """The macro measures, and the AUROC of each finding."""
        return (*MEASURES, *(f"auroc[{finding}]" for finding in self.findings))

    @property
    def repeated(self) -> frozenset[str]:
        """The section about findings has the measures of each."""
        return frozenset(f"auroc[{finding}]" for finding in self.findings)

    def too_few_patients(self, least: int) -> str:
        """Return of which finding fewer than `least` patients have it or have it not, or nothing."""
        return next(filter(None, (_too_few(k, self, least) for k in range(len(self.findings)))), "")

    def useless(self) -> str:
        """Return that it does no better than chance, or calls no finding right on both sides, or nothing."""
        once = np.ones((1, len(self.patients)))
        macro = float(MEASURES["auroc"].values(self, once)[0])
        if chance := no_better_than_chance(MEASURES, {"auroc": macro}):
            return f"{chance}."
        for number in range(len(self.findings)):
            one = self.one(number)
            if np.any(one.present & one.called) and np.any(~one.present & ~one.called):
                return ""
        return "of no finding it calls an image right that has it and one that has it not."

    def not_comparable(self, champion: "FindingPredictions") -> str:
        """Return why a champion of other findings or of other test examples cannot be compared, or nothing."""
        same = np.array_equal(self.truth, champion.truth) and np.array_equal(self.patients, champion.patients)
        examples = [len(champion.truth), len(self.truth)]
        return difference("findings", [champion.findings, self.findings], examples, same_examples=same)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingMeasure:
    """A measure of one finding."""

    title: str
    measure: Measured
    higher_is_better: bool = True
    decides: bool = True
    chance: float | None = None


def auroc(one: OneFinding, weights: Floats) -> Floats:
    """Return the area under the receiver operating characteristic; a tie counts half."""
    return area_under_roc(*ranked_counts(one.present, one.probabilities, weights))


def auprc(one: OneFinding, weights: Floats) -> Floats:
    """Return the average precision: the area under the steps of the precision-recall curve."""
    return average_precision(*ranked_counts(one.present, one.probabilities, weights))


def accuracy(one: OneFinding, weights: Floats) -> Floats:
    """Return the share of images that are called right."""
    return _share(one.called == one.present, np.ones_like(one.present), weights)


def recall(one: OneFinding, weights: Floats) -> Floats:
    """Return the share of images with the finding that are called so (the sensitivity)."""
    return _share(one.called, one.present, weights)


def specificity(one: OneFinding, weights: Floats) -> Floats:
    """Return the share of images without the finding that are called so."""
    return _share(~one.called, ~one.present, weights)


def precision(one: OneFinding, weights: Floats) -> Floats:
    """Return the share of images that are called to have the finding which have it (the positive predictive value)."""
    return _share(one.present, one.called, weights)


def f1(one: OneFinding, weights: Floats) -> Floats:
    """Return the harmonic mean of precision and recall."""
    both, either = one.called & one.present, one.called.astype(np.float64) + one.present
    return ratio(2 * weights @ both, weights @ either)


def brier(one: OneFinding, weights: Floats) -> Floats:
    """Return the mean squared error of the probabilities (Brier 1950)."""
    return ratio(weights @ (one.probabilities - one.present) ** 2, weights.sum(axis=1))


OF_ONE: Mapping[str, FindingMeasure] = {
    "auroc": FindingMeasure(title="AUROC", measure=auroc, chance=0.5),
    "auprc": FindingMeasure(title="AUPRC", measure=auprc),
    "accuracy": FindingMeasure(title="Accuracy", measure=accuracy),
    "recall": FindingMeasure(title="Recall (sensitivity)", measure=recall),
    "specificity": FindingMeasure(title="Specificity", measure=specificity),
    "precision": FindingMeasure(title="Precision (PPV)", measure=precision),
    "f1": FindingMeasure(title="F1", measure=f1),
    "brier": FindingMeasure(title="Brier score", measure=brier, higher_is_better=False, decides=False),
}


def _macro(measure: Measured, predictions: FindingPredictions, weights: Floats) -> Floats:
    each = [_of_finding(measure, number, predictions, weights) for number in range(len(predictions.findings))]
    mean: Floats = np.mean(each, axis=0)
    return mean


def _of_finding(measure: Measured, number: int, predictions: FindingPredictions, weights: Floats) -> Floats:
    rows = predictions.known(number)
    if not rows.any():
        return np.full(len(weights), np.nan)
    return measure(predictions.one(number), weights if rows.all() else weights[:, rows])


def _known(number: int, predictions: FindingPredictions) -> Flags:
    return predictions.known(number)


def _too_few(number: int, predictions: FindingPredictions, least: int) -> str:
    counts = predictions.count_patients(number)
    side = min(counts, key=lambda one: counts[one])
    if counts[side] >= least:
        return ""
    return (
        f"the gate asks for {least} test patients with each finding and as many without it, and "
        f"{predictions.findings[number]!r} is known as {side} of {counts[side]}; label more patients or lower "
        "min_patients."
    )


def _share(of_these: Flags, among: Flags, weights: Floats) -> Floats:
    return ratio(weights @ (of_these & among), weights @ among.astype(np.float64))


MEASURES: dict[str, MeasureDefinition] = {
    name: MeasureDefinition(
        title=f"{one.title}, mean of findings",
        values=partial(_macro, one.measure),
        higher_is_better=one.higher_is_better,
        decides=one.decides,
        chance=one.chance,
    )
    for name, one in OF_ONE.items()
}
"""The macro measures by name; the gate decides on the first that may decide."""
