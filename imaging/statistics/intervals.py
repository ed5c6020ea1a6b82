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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A value with its 95 % interval and the counts that it rests on; what is undefined is NaN.

    `undefined_draws` were left out of the interval, because a class was missing in them.
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
        """The interval in brackets, or nothing where the value is undefined."""
        return "" if isnan(self.value) else f"({self.lower:.3f}-{self.upper:.3f})"


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
    lower, upper = np.percentile(defined, LIMITS) if defined.size else (np.nan, np.nan)
    return Measure(
        name=name,
        title=definition.title,
        value=value,
        lower=float(lower),
        upper=float(upper),
        patients=len(np.unique(patients)),
        examples=len(patients),
        undefined_draws=len(drawn) - len(defined),
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
            name, predictions.measures[name], value_of(predictions, name), values, predictions.patients
        )
        for name, values in drawn.items()
    }


def _times_drawn(generator: np.random.Generator, draws: int, patients: int) -> Floats:
    """Return how often each patient is among `patients` draws with replacement, (draws, patients)."""
    picked = generator.integers(patients, size=(draws, patients))
    picked += np.arange(draws)[:, None] * patients
    return np.bincount(picked.ravel(), minlength=draws * patients).reshape(draws, patients).astype(np.float64)
