"""Protocol of predictions: what intervals, the gate and the report need to know of any kind of task.

A kind of task (classes, findings, masks) keeps what a model predicted for n examples in a class of its own, beside
the measures of it, and offers the attributes below.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureDefinition:
    """One measure of a kind of task.

    `values` maps predictions and example weights (draws, n) to values (draws,). Weights of one give the plain
    value; a bootstrap hands in how often each example was drawn. What a draw does not define is NaN.
    """

    title: str
    values: Callable[[Any, Floats], Floats]
    higher_is_better: bool = True
    decides: bool = True
    """Whether the gate may decide on it; more must be better then."""
    chance: float | None = None
    """What guessing reaches; who does no better is useless. None where that depends on the data."""
    rows: Callable[[Any], NDArray[np.bool_]] | None = None
    """Mask of the examples that it rests on, such as those of which a finding is known; None for all."""
    too_few: Callable[[Any, int], str] | None = None
    """Answers for this measure instead of `Predictions.too_few_patients`, where it rests on a part of the truth."""

    def patients(self, predictions: "Predictions") -> NDArray[np.str_]:
        """Return the patient keys of the examples that it rests on."""
        return predictions.patients if self.rows is None else predictions.patients[self.rows(predictions)]


class Predictions(Protocol):
    """Predictions of one model for n examples, with the truth about them."""

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient keys (n,)."""
        ...

    @property
    def measures(self) -> Mapping[str, MeasureDefinition]:
        """The measures by name; the gate decides on the first that may decide, unless it is told another."""
        ...

    @property
    def reported(self) -> tuple[str, ...]:
        """Names of the measures that are shown and logged, in this order."""
        ...

    @property
    def repeated(self) -> frozenset[str]:
        """Names of reported measures that equal another one for these predictions; a page leaves them out."""
        ...

    def too_few_patients(self, least: int) -> str:
        """Return why fewer patients than the gate asks for are tested, as the end of a sentence, or nothing."""
        ...

    def useless(self) -> str:
        """Return why a model with these predictions is of no use to anyone, as the end of a sentence, or nothing."""
        ...

    def not_comparable(self, champion: Any) -> str:
        """Return why a champion's predictions cannot be compared with these, as the end of a sentence, or nothing."""
        ...


def no_better_than_chance(measures: Mapping[str, MeasureDefinition], values: Mapping[str, float]) -> str:
    """Return which of these values guessing reaches too, as in "its AUROC of 0.190 is ...", or nothing."""
    for name, definition in measures.items():
        # An undefined value, NaN, says nothing.
        if definition.chance is not None and values.get(name, math.nan) <= definition.chance:
            return f"its {definition.title} of {values[name]:.3f} is no better than chance, {definition.chance:g}"
    return ""


def deciding(measures: Mapping[str, MeasureDefinition]) -> tuple[str, ...]:
    """Return the names of the measures that the gate may decide on."""
    return tuple(name for name, measure in measures.items() if measure.decides)


def difference(
    what: str, names: Sequence[Sequence[str]], examples: Sequence[int], *, same_examples: bool
) -> str:
    """Return why a champion and a candidate cannot be compared, or nothing.

    `names` are the classes or findings that each knows, and `examples` how many each predicted, the champion's first.

    >>> difference("classes", [("a", "b"), ("a", "b")], [3, 3], same_examples=True)
    ''
    """
    champion, candidate = names
    if champion != candidate:
        return (
            f"the champion knows the {what} {', '.join(champion)} and the candidate {', '.join(candidate)}; register "
            "the candidate under another model name."
        )
    if not same_examples:
        return (
            f"the two did not predict the same test examples ({examples[0]} of the champion, {examples[1]} of the "
            "candidate); let both predict one test part."
        )
    return ""
