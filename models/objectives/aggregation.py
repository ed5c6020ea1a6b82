"""Aggregation of images to series, studies and patients: the rules, and the units that are judged in place of images.

A rule makes one row of probabilities of those of a unit's images. It is part of the model: its metadata name it, and
everything that is measured of the model is measured of its units.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from imaging.errors import UserFault
from imaging.quantities import quantity
from imaging.release_compatibility import Since
from models.portable.contract import Axis, TensorContract

if TYPE_CHECKING:
    from imaging.dataset.version.dataset_version import DatasetVersion
    from imaging.dataset.version.example_set import ExampleSet

AGGREGATE = "aggregate"
"""Key of the metadata of a file and of the tags of a version."""
ATTENTION = "attention"
"""Name of the rule, and of the output of a file that it needs."""
NOUNS = {"image": "images", "series": "series", "study": "studies", "patient": "patients"}
"""Of what may be judged, in the plural."""

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Rule = Callable[[Floats, Numbers, Floats], Floats]
"""Takes probabilities of images (n, k), unit by unit, the place at which each unit begins (m,), and logits of attention
(n, 1 or k); returns the probabilities of the units (m, k)."""


class AggregateConfig(BaseModel):
    """What is judged in place of each image, and how the probabilities of its images become one."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Aggregation")

    over: Annotated[Literal["image", "series", "study", "patient"], Since("0.2.0")] = Field(
        "image",
        title="Over",
        description="What the model is judged by: each image, or all those of a unit as one.",
    )
    rule: Annotated[Literal["mean", "max", "noisy-or", "attention"], Since("0.2.0")] = Field(
        "mean",
        title="Rule",
        description="How the probabilities of a unit's images become one; 'attention' is a weighted mean whose weights "
        "are learned.",
    )

    @model_validator(mode="after")
    def _rule_of_units(self) -> Self:
        if self.over == "image" and self.rule != "mean":
            raise ValueError(
                f"aggregate.rule is {self.rule!r} and each image is judged alone: set aggregate.over to series, study "
                "or patient"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether units are judged in place of images."""
        return self.over != "image"

    @property
    def learned(self) -> bool:
        """Whether the rule has weights, which the file gives as an output."""
        return self.rule == ATTENTION

    @property
    def in_training(self) -> "AggregateConfig":
        """What epochs are measured by: attention is fitted once the network is trained, until then the mean serves."""
        return self.model_copy(update={"rule": "mean"}) if self.learned else self


EACH_IMAGE = AggregateConfig()
"""The default: nothing is aggregated."""


def mean_of(probabilities: Floats, starts: Numbers, attention: Floats) -> Floats:
    """Return the mean over the images of each unit.

    >>> mean_of(np.array([[0.2], [0.4], [0.9]]), np.array([0, 2]), np.empty((3, 0))).round(3).tolist()
    [[0.3], [0.9]]
    """
    return np.asarray(np.add.reduceat(probabilities, starts) / _sizes(starts, len(probabilities))[:, None])


def max_of(probabilities: Floats, starts: Numbers, attention: Floats) -> Floats:
    """Return the largest one of each unit.

    >>> max_of(np.array([[0.2], [0.4], [0.9]]), np.array([0, 2]), np.empty((3, 0))).tolist()
    [[0.4], [0.9]]
    """
    return np.asarray(np.maximum.reduceat(probabilities, starts))


def noisy_or_of(probabilities: Floats, starts: Numbers, attention: Floats) -> Floats:
    """Return the probability that it is in any image, if each may have it independently of the others.

    Logarithms are added up, so that small probabilities keep their digits.

    >>> noisy_or_of(np.array([[0.5], [0.5], [0.0], [1.0]]), np.array([0, 2]), np.empty((4, 0))).tolist()
    [[0.75], [1.0]]
    """
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(np.add.reduceat(np.log1p(-probabilities), starts)))


def attention_of(probabilities: Floats, starts: Numbers, attention: Floats) -> Floats:
    """Return the mean that is weighted by the softmax of the attention over the images of each unit.

    >>> attention_of(np.array([[0.2], [0.4]]), np.array([0]), np.log([[1.0], [3.0]])).round(3).tolist()
    [[0.35]]
    """
    sizes = _sizes(starts, len(probabilities))
    weights = np.exp(attention - np.repeat(np.maximum.reduceat(attention, starts), sizes, axis=0))
    return np.asarray(np.add.reduceat(weights * probabilities, starts) / np.add.reduceat(weights, starts))


RULES: Mapping[str, Rule] = {
    "mean": mean_of,
    "max": max_of,
    "noisy-or": noisy_or_of,
    ATTENTION: attention_of,
}
"""By the names that `AggregateConfig.rule` has."""
OF_ONE_SIDE = ("max", "noisy-or")
"""Rules for what is there or not; the classes of several would not add up to 1."""


class Labelled(Protocol):
    """Examples whose truth and patients are known, in the order of their scores."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices (n,); -1 where there is none."""
        ...

    @property
    def findings(self) -> NDArray[np.int8]:
        """What is known of each finding (n, findings): 1 present, 0 absent, -1 unknown."""
        ...

    @property
    def patient_keys(self) -> NDArray[np.str_]:
        """Patient keys (n,)."""
        ...

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return prepared images."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Units:
    """Units of examples (m), which are judged as examples are: each has one truth and is of one patient.

    `order` are the positions of their examples, unit by unit, and `starts` (m,) the place in it at which each begins.
    Units come in the order of their first example.
    """

    over: str
    classes: tuple[str, ...]
    """Of which `labels` are; of two, the rule is for the second."""
    examples: Labelled
    order: Numbers
    starts: Numbers
    labels: NDArray[np.int64]
    findings: NDArray[np.int8]
    patient_keys: NDArray[np.str_]
    disputed: int
    """Units of which some images have what others have not: they have it."""
    left_out: int
    """Units with images of several classes of more than two, which are not among these."""

    @classmethod
    def of(cls, numbers: Numbers, examples: Labelled, over: str, classes: Sequence[str]) -> Self:
        """Return the units of examples by their numbers (n,), from 0 on.

        A finding of a unit is present where it is in any image, absent where it is known as absent in some and present
        in none; the second of two classes likewise. A unit with images of several classes of more than two has no
        truth and is left out. Raises UserFault where none is left.
        """
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        labels, findings = examples.labels[order], examples.findings[order]
        lowest, highest = np.minimum.reduceat(labels, starts), np.maximum.reduceat(labels, starts)
        # Of -1 unknown, 0 absent and 1 present, the largest is what is true of all together.
        together = np.maximum.reduceat(findings, starts)
        mixed = ((together == 1) & np.logical_or.reduceat(findings == 0, starts)).any(axis=1) | (
            lowest < highest
        )
        kept = ~mixed if len(classes) > 2 else np.ones(len(starts), bool)
        if len(kept) and not kept.any():
            raise UserFault(
                f"none of {quantity(len(starts), NOUNS[over])} has images of one class alone, so none can be judged: "
                "aggregate over less, or leave aggregate as it is"
            )
        sizes = _sizes(starts, len(order))
        order, sizes = order[np.repeat(kept, sizes)], sizes[kept]
        starts = np.cumsum(sizes) - sizes
        return cls(
            over=over,
            classes=tuple(classes),
            examples=examples,
            order=order,
            starts=starts,
            labels=highest[kept],
            findings=together[kept],
            patient_keys=examples.patient_keys[order[starts]],
            disputed=int((mixed & kept).sum()),
            left_out=int((~kept).sum()),
        )

    @classmethod
    def of_version(cls, version: "DatasetVersion", examples: "ExampleSet", over: str) -> Self:
        """Return the units of examples of a dataset version."""
        return cls.of(version.unit_numbers(examples, over), examples, over, version.classes)

    def __len__(self) -> int:
        return len(self.starts)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the first image of each of these units."""
        return self.examples.gather(self.order[self.starts[index]])

    def members(self, unit: int) -> Numbers:
        """Return the positions of the examples of a unit."""
        end = self.starts[unit + 1] if unit + 1 < len(self) else len(self.order)
        return self.order[self.starts[unit] : end]

    def aggregate(
        self, probabilities: NDArray[np.floating], rule: str, attention: NDArray[np.floating]
    ) -> Floats:
        """Return the probabilities (m, k) of the units, from those of all examples (n, k) and their attention.

        In double precision: in single, the noisy-or of a hundred images is 1.
        """
        rows, weights = probabilities[self.order].astype(np.float64), attention[self.order].astype(np.float64)
        return RULES[rule](np.clip(rows, 0, 1), self.starts, weights)

    def shown(self, scores: NDArray[np.floating], columns: Numbers) -> Numbers:
        """Return of each unit the position of the example with the largest score in the unit's column (m,).

        Of equal ones it is the first.
        """
        members = map(self.members, range(len(self)))
        best = [one[scores[one, at].argmax()] for one, at in zip(members, columns, strict=True)]
        return np.array(best, np.int64)

    def text(self, rule: str) -> str:
        """Return what is judged, as a sentence."""
        nouns = NOUNS[self.over]
        judged = f"Judged are {quantity(len(self), nouns)} of {quantity(len(self.order), 'images')}, by the rule {rule}"
        left = (
            f"; left out: {quantity(self.left_out, nouns)} with images of several classes"
            if self.left_out
            else ""
        )
        both = (
            f"; {quantity(self.disputed, nouns)} with it in some images and not in others, counted as having it"
            if self.disputed
            else ""
        )
        return f"{judged}{left}{both}."


def attention_output(axis: Axis) -> TensorContract:
    """Return the output by which images are weighed against the others of their unit."""
    meaning = "the softmax of it over the images of a unit weighs their probabilities"
    return TensorContract(name=ATTENTION, axes=(Axis(name="batch"), axis), units="1", meaning=meaning)


def _sizes(starts: Numbers, count: int) -> Numbers:
    return np.diff(np.append(starts, count))
