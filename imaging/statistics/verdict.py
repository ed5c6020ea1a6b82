"""Rule of the gate: when a candidate may take the champion's place.

It must be of use (better than chance, and right about more than one class), reach a floor and, where there is a
champion, be not worse by more than a margin: the lower limit of the 95 % interval of candidate - champion, by a
paired patient bootstrap, lies above -margin (non-inferiority, one-sided at 97.5 %; ICH E9, section 3.3.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isnan

from pydantic import BaseModel, ConfigDict, Field

from imaging.errors import UserFault
from imaging.quantities import quantity
from imaging.statistics.intervals import NO_INTERVAL, Measure, bootstrap, summarize, value_of
from imaging.statistics.predictions import Floats, MeasureDefinition, Predictions, deciding


class GateConfig(BaseModel):
    """What a candidate must prove before it is promoted."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Gate")

    measure: str | None = Field(
        None,
        # In brackets a part of the measure, such as one finding of several.
        pattern=r"^[a-z0-9_]+(\[[^\[\]]+\])?$",
        title="Measure",
        description="What decides; more is better. auroc[NAME] is that of one finding. Default: the objective's "
        "first, which is auroc for classes, and for findings their mean.",
    )
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
        description="Test patients that each class must have for a decision; of a finding, with and without it.",
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
    useless: str = ""
    """Why the candidate is of no use to anyone, as the end of a sentence."""

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
            # Written where it is not so, too: it takes the place of what an earlier verdict wrote.
            "gate.useless": self.useless or "no",
        }

    @property
    def difference_text(self) -> str:
        """The difference with its interval, as in +0.007 (-0.011 to +0.024)."""
        if self.difference is None or self.difference_lower is None or self.difference_upper is None:
            return "none"
        return _signed(self.difference, self.difference_lower, self.difference_upper)


def gate_measure(measures: Mapping[str, MeasureDefinition], gate: GateConfig) -> str:
    """Return the name of the measure that decides: the gate's, or the first that may decide.

    Raises UserFault for one that is not among them, or that may not decide.
    """
    known = deciding(measures)
    if gate.measure is not None and gate.measure not in known:
        raise UserFault(f"the gate cannot decide on {gate.measure!r}: choose one of {', '.join(known)}")
    return gate.measure or known[0]


def decide(
    candidate: Predictions, champion: Predictions | None, gate: GateConfig, doubt: str = ""
) -> Verdict:
    """Return whether the candidate may become the champion; `doubt` is why it was useless before the test.

    Both must have predicted the same examples, in the same order, in the same terms; otherwise the verdict is
    no. The floor is compared with the plain value, the margin with the interval's lower limit.
    """
    own, drawn = _measured(candidate, gate)
    too_few = candidate.measures[own.name].too_few
    few = too_few(candidate, gate.min_patients) if too_few else candidate.too_few_patients(gate.min_patients)
    # Of too few patients nothing follows, not even that.
    useless = "" if few else doubt or candidate.useless()
    obstacle = few or (useless and f"the candidate is of no use: {useless}") or _below_floor(own, gate)
    alone = Verdict(
        promote=not obstacle,
        reason=obstacle or f"{_reached(own, gate)}, and there is no champion yet.",
        measure=own.name,
        candidate=own,
        champion=None,
        difference=None,
        difference_lower=None,
        difference_upper=None,
        margin=gate.margin,
        floor=gate.floor,
        patients=own.patients,
        examples=own.examples,
        useless=useless,
    )
    if champion is None:
        return alone
    other, drawn_other = _measured(champion, gate)
    if unlike := candidate.not_comparable(champion):
        return replace(alone, promote=False, reason=unlike, champion=other)
    definition = candidate.measures[own.name]
    difference = summarize(
        own.name, definition, own.value - other.value, drawn - drawn_other, definition.patients(candidate)
    )
    # Written so that an undefined limit, NaN, is a no.
    within = difference.lower > -gate.margin
    return replace(
        alone,
        promote=within and not obstacle,
        reason=obstacle or _compared(own, other, difference, gate, within),
        champion=other,
        difference=difference.value,
        difference_lower=difference.lower,
        difference_upper=difference.upper,
    )


def _measured(predictions: Predictions, gate: GateConfig) -> tuple[Measure, Floats]:
    name = gate_measure(predictions.measures, gate)
    drawn = bootstrap(predictions, [name], gate.draws, gate.seed)[name]
    value = value_of(predictions, name)
    definition = predictions.measures[name]
    return summarize(name, definition, value, drawn, definition.patients(predictions)), drawn


def _below_floor(own: Measure, gate: GateConfig) -> str:
    if own.value >= gate.floor:
        return ""
    return (
        f"the candidate's {own.title} of {own} on {quantity(own.patients, 'patients')} does not reach "
        f"the floor of {gate.floor:.3f}."
    )


def _reached(own: Measure, gate: GateConfig) -> str:
    return (
        f"the candidate's {own.title} of {own} on {quantity(own.patients, 'patients')} reaches "
        f"the floor of {gate.floor:.3f}"
    )


def _compared(own: Measure, other: Measure, difference: Measure, gate: GateConfig, within: bool) -> str:
    interval = _signed(difference.value, difference.lower, difference.upper)
    meaning = (
        f"not worse by more than the margin of {gate.margin:.3f}."
        if within
        else f"a loss of more than the margin of {gate.margin:.3f} is not ruled out."
    )
    joint = "and" if within else "but"
    return (
        f"{_reached(own, gate)}, {joint} its difference from the champion's {other} is {interval}: {meaning}"
    )


def _signed(value: float, lower: float, upper: float) -> str:
    if isnan(value):
        return "undefined"
    return f"{value:+.3f} {NO_INTERVAL if isnan(lower) else f'({lower:+.3f} to {upper:+.3f})'}"
