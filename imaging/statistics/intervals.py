"""Confidence intervals of measures: a bootstrap over patients, for the images of one are not independent.

Patients are drawn with replacement and bring all of their examples along (the cluster bootstrap, Davison and
Hinkley 1997, section 3.8). Equal patients and seed give equal draws: that is what pairs two models.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from imaging.statistics.predictions import Floats, MeasureDefinition, Predictions

BLOCK_VALUES = 1 << 20
"""Weights held at a time; each measure needs a few times 8 bytes for each."""

LIMITS = (2.5, 97.5)
"""The percentiles of a two-sided 95 % interval."""

ONE_PATIENT = 0.2
"""Of draws of n patients (1 - 1/n)^n, 0.25 to 0.37, lack the only one of a class; at most 0.14 lack both of two."""

NO_WIDTH = 1e-9
"""What rounding may make of equal values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A value with its 95 % interval and the counts that it rests on; what is undefined is NaN.

    `undefined_draws` were left out of the interval, because a class was missing in them. What rests on one patient
    has no interval: its limits are NaN, for every draw repeats that patient.
    """

    name: str
    title: str
    value: float
    lower: float
    upper: float
    patients: int
    examples: int
    undefined_draws: int
    higher_is_better: bool = True

    def __str__(self) -> str:
        return f"{self.value_text} {self.interval_text}".strip()

    @property
    def value_text(self) -> str:
        """The value as a reader sees it."""
        return "undefined" if isnan(self.value) else f"{self.value:.3f}"

    @property
    def interval_text(self) -> str:
        """The interval in brackets, "(n/a)" where there is none, or nothing where the value is undefined."""
        if isnan(self.value):
            return ""
        return NO_INTERVAL if isnan(self.lower) else f"({self.lower:.3f}-{self.upper:.3f})"


NO_INTERVAL = "(n/a)"
"""What is shown for the interval of what rests on one patient."""


def patient_weights(patients: NDArray[np.str_], draws: int, seed: int) -> Iterator[Floats]:
    """Yield blocks (some, n), `draws` rows in all: how often the patient of each example was drawn."""
    keys, owner = np.unique(patients, return_inverse=True)
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK_VALUES // len(patients))
    for start in range(0, draws, step):
        yield _times_drawn(generator, min(step, draws - start), len(keys))[:, owner]


def bootstrap(
    predictions: Predictions, names: Iterable[str], draws: int = 2000, seed: int = 0
) -> dict[str, Floats]:
    """Return the named measures of each draw, (draws,) each."""
    blocks: dict[str, list[Floats]] = {name: [] for name in names}
    for weights in patient_weights(predictions.patients, draws, seed):
        for name, values in blocks.items():
            values.append(predictions.measures[name].values(predictions, weights))
    return {name: np.concatenate(values) for name, values in blocks.items()}


def summarize(
    name: str, definition: MeasureDefinition, value: float, drawn: Floats, patients: NDArray[np.str_]
) -> Measure:
    """Return the measure of a value and its draws (draws,) by the percentile interval."""
    defined = drawn[~np.isnan(drawn)]
    count, undefined = len(np.unique(patients)), len(drawn) - len(defined)
    has_interval = defined.size and not _rests_on_one(defined, undefined, count)
    lower, upper = np.percentile(defined, LIMITS) if has_interval else (np.nan, np.nan)
    return Measure(
        name=name,
        title=definition.title,
        value=value,
        lower=float(lower),
        upper=float(upper),
        patients=count,
        examples=len(patients),
        undefined_draws=undefined,
        higher_is_better=definition.higher_is_better,
    )


def value_of(predictions: Predictions, name: str) -> float:
    """Return the plain value of a measure."""
    once = np.ones((1, len(predictions.patients)))
    return float(predictions.measures[name].values(predictions, once)[0])


def measure_all(
    predictions: Predictions, names: Iterable[str] = (), draws: int = 2000, seed: int = 0
) -> dict[str, Measure]:
    """Return each named measure, by default all, with its 95 % patient-bootstrap interval."""
    drawn = bootstrap(predictions, tuple(names) or predictions.measures, draws, seed)
    return {
        name: summarize(
            name,
            predictions.measures[name],
            value_of(predictions, name),
            values,
            predictions.measures[name].patients(predictions),
        )
        for name, values in drawn.items()
    }


def _rests_on_one(defined: Floats, undefined: int, patients: int) -> bool:
    """Return whether a measure rests on one patient: on the only one, or on the only one of a class.

    Equal draws alone do not say so: of a perfect measure all are equal.
    """
    share = undefined / (undefined + len(defined))
    return patients == 1 or (share > ONE_PATIENT and float(np.ptp(defined)) < NO_WIDTH)


def _times_drawn(generator: np.random.Generator, draws: int, patients: int) -> Floats:
    """Return how often each patient is among `patients` draws with replacement, (draws, patients)."""
    picked = generator.integers(patients, size=(draws, patients))
    picked += np.arange(draws)[:, None] * patients
    return np.bincount(picked.ravel(), minlength=draws * patients).reshape(draws, patients).astype(np.float64)
