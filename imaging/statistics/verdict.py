"""Rule of the gate: when a candidate may take the champion's place.

It must reach a floor and, where there is a champion, be not worse by more than a margin: the lower limit of
the 95 % interval of candidate - champion, by a paired patient bootstrap, lies above -margin (non-inferiority,
one-sided at 97.5 %; ICH E9, section 3.3.2).
"""

from dataclasses import dataclass
from math import isnan
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from imaging.statistics.classification import TITLES, Floats, Predictions
from imaging.statistics.intervals import Measure, bootstrap, summarize, value_of

GateMeasure = Literal[
    "auroc", "auprc", "accuracy", "accuracy_argmax", "recall", "specificity", "precision", "f1"
]
"""The measures of which more is better."""


class GateConfig(BaseModel):
    """What a candidate must prove before it is promoted."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Gate")

    measure: GateMeasure = Field("auroc", title="Measure", description="What decides; more is better.")
    floor: float = Field(
        0.70, ge=0.5, le=1, title="Floor", description="The least value of the measure, 0.5 to 1."
    )
    margin: float = Field(
        0.02,
        ge=0,
        le=0.5,
        title="Margin",
        description="How much worse than the champion it may be at most, in the measure's units.",
    )
    min_patients: int = Field(
        5,
        ge=1,
        title="Fewest patients",
        description="Test patients that each class must have for a decision.",
    )
    draws: int = Field(
        2000, ge=200, le=20_000, title="Bootstrap draws", description="More give steadier limits."
    )
    seed: int = Field(0, ge=0, title="Seed", description="The same seed draws the same patients.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate decided, with every number that it rests on; a difference is candidate - champion."""

    promote: bool
    reason: str
    measure: str
    candidate: Measure
    champion: Measure | None
    difference: float | None
    difference_lower: float | None
    difference_upper: float | None
    margin: float
    floor: float
    patients: int
    examples: int

    @property
    def decision(self) -> str:
        """What happens, in one or three words."""
        if self.promote:
            return "Promoted"
        return "Not promoted" if self.champion is None else "Kept the champion"

    @property
    def headline(self) -> str:
        """The decision and its reason in one sentence."""
        return f"{self.decision}: {self.reason}"

    def tags(self) -> dict[str, str]:
        """Return the verdict as the tags of a model version."""
        return {
            "gate.promote": str(self.promote).lower(),
            "gate.reason": self.reason,
            "gate.measure": self.measure,
            "gate.candidate": str(self.candidate),
            "gate.champion": "none" if self.champion is None else str(self.champion),
            "gate.difference": self.difference_text,
            "gate.margin": f"{self.margin:.3f}",
            "gate.floor": f"{self.floor:.3f}",
            "gate.patients": str(self.patients),
            "gate.examples": str(self.examples),
        }

    @property
    def difference_text(self) -> str:
        """The difference with its interval, as in +0.007 (-0.011 to +0.024)."""
        if self.difference is None:
            return "none"
        return _signed(self.difference, self.difference_lower, self.difference_upper)


def decide(candidate: Predictions, champion: Predictions | None, gate: GateConfig) -> Verdict:
    """Return whether the candidate may become the champion.

    Both must have predicted the same examples, in the same order, with the same classes; otherwise the
    verdict is no. The floor is held against the plain value, the margin against the interval's lower limit.
    """
    own, drawn = _measured(candidate, gate)
    obstacle = _too_few(candidate, gate) or _below_floor(own, gate)
    if champion is None:
        reason = obstacle or f"{_reached(own, gate)}, and there is no champion yet."
        return _verdict(gate, own, promote=not obstacle, reason=reason)
    other, drawn_other = _measured(champion, gate)
    unlike = _unlike(candidate, champion)
    if unlike:
        return _verdict(gate, own, promote=False, reason=unlike, champion=other)
    difference = summarize(gate.measure, own.value - other.value, drawn - drawn_other, candidate.patients)
    # Written so that an undefined limit, NaN, is a no.
    holds = difference.lower > -gate.margin
    reason = obstacle or _compared(own, other, difference, gate, holds)
    return _verdict(
        gate, own, promote=holds and not obstacle, reason=reason, champion=other, difference=difference
    )


def _measured(predictions: Predictions, gate: GateConfig) -> tuple[Measure, Floats]:
    drawn = bootstrap(predictions, [gate.measure], gate.draws, gate.seed)[gate.measure]
    value = value_of(predictions, gate.measure)
    return summarize(gate.measure, value, drawn, predictions.patients), drawn


def _verdict(
    gate: GateConfig,
    own: Measure,
    *,
    promote: bool,
    reason: str,
    champion: Measure | None = None,
    difference: Measure | None = None,
) -> Verdict:
    return Verdict(
        promote=promote,
        reason=reason,
        measure=gate.measure,
        candidate=own,
        champion=champion,
        difference=None if difference is None else difference.value,
        difference_lower=None if difference is None else difference.lower,
        difference_upper=None if difference is None else difference.upper,
        margin=gate.margin,
        floor=gate.floor,
        patients=own.patients,
        examples=own.examples,
    )


def _too_few(candidate: Predictions, gate: GateConfig) -> str:
    """Return why the test patients are too few to decide, or nothing."""
    counts = [
        len(np.unique(candidate.patients[candidate.labels == k])) for k in range(len(candidate.classes))
    ]
    fewest = int(np.argmin(counts))
    if counts[fewest] >= gate.min_patients:
        return ""
    return (
        f"only {counts[fewest]} test patients are '{candidate.classes[fewest]}' and the gate asks for "
        f"{gate.min_patients} of each class; label more patients or lower min_patients."
    )


def _below_floor(own: Measure, gate: GateConfig) -> str:
    if own.value >= gate.floor:
        return ""
    return (
        f"the candidate's {TITLES[gate.measure]} of {own} on {own.patients:,} patients does not reach "
        f"the floor of {gate.floor:.3f}."
    )


def _unlike(candidate: Predictions, champion: Predictions) -> str:
    """Return why the two cannot be compared, or nothing."""
    if candidate.classes != champion.classes:
        return (
            f"the champion knows the classes {', '.join(champion.classes)} and the candidate "
            f"{', '.join(candidate.classes)}; register the candidate under another model name."
        )
    same = np.array_equal(candidate.labels, champion.labels)
    if not (same and np.array_equal(candidate.patients, champion.patients)):
        return (
            f"the two did not predict the same test examples ({len(champion.labels)} of the champion, "
            f"{len(candidate.labels)} of the candidate); let both predict one test part."
        )
    return ""


def _reached(own: Measure, gate: GateConfig) -> str:
    return (
        f"the candidate's {TITLES[gate.measure]} of {own} on {own.patients:,} patients reaches "
        f"the floor of {gate.floor:.3f}"
    )


def _compared(own: Measure, other: Measure, difference: Measure, gate: GateConfig, holds: bool) -> str:
    spread = _signed(difference.value, difference.lower, difference.upper)
    meaning = (
        f"not worse by more than the margin of {gate.margin:.3f}."
        if holds
        else f"a loss of more than the margin of {gate.margin:.3f} is not ruled out."
    )
    joint = "and" if holds else "but"
    return f"{_reached(own, gate)}, {joint} its difference from the champion's {other} is {spread}: {meaning}"


def _signed(value: float, lower: float | None, upper: float | None) -> str:
    return "undefined" if isnan(value) else f"{value:+.3f} ({lower:+.3f} to {upper:+.3f})"
