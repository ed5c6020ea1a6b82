"""Search space of a training: the fields that are tried, and the trials that are drawn from it."""

import json
from collections.abc import Mapping
from functools import reduce
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imaging.errors import UserFault
from models.config import TrainConfig

DIGITS = 4
"""Significant digits of a drawn number: more would say nothing, and a person reads them."""
FIXED = ("objective", "measure")
"""Fields by which trials are compared."""
DRAWS = 20
"""Draws for each trial before the space counts as used up, as where few values can be combined."""


class SearchedField(BaseModel):
    """A field of a training and what is tried for it: some values, or a range of numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Searched field")

    name: str = Field(
        title="Name", description="Name in a training, with dots between its parts: optimizer.learning_rate."
    )
    values: tuple[str, ...] = Field(
        (), title="Values", description="Values as a configuration file has them: 16, true, resnet18."
    )
    low: float | None = Field(None, title="Lowest", description="Smallest number of a range.")
    high: float | None = Field(None, title="Highest", description="Largest number of a range.")
    log: bool = Field(
        False, title="Logarithmic", description="Draw evenly over orders of magnitude, as for learning rates."
    )

    @model_validator(mode="after")
    def _values_or_range(self) -> Self:
        is_range = self.low is not None and self.high is not None
        if self.name in FIXED:
            raise ValueError(f"{self.name} is what trials are compared by: leave it out of the space")
        if bool(self.values) == is_range or (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name}: give either values, or low and high")
        if is_range and not self.low < self.high:  # type: ignore[operator]
            raise ValueError(f"{self.name}: low {self.low:g} must be less than high {self.high:g}")
        if is_range and self.log and self.low <= 0:  # type: ignore[operator]
            raise ValueError(f"{self.name}: a logarithmic range needs a low of more than 0, got {self.low:g}")
        return self

    def draw(self, generator: np.random.Generator) -> Any:
        """Return one value."""
        if self.values:
            return _parsed(self.values[int(generator.integers(len(self.values)))])
        assert self.low is not None and self.high is not None
        low, high = np.log((self.low, self.high)) if self.log else (self.low, self.high)
        number = generator.uniform(low, high)
        return float(f"{np.exp(number) if self.log else number:.{DIGITS}g}")


class SearchConfig(BaseModel):
    """How many trainings are tried, and which."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Search")

    trials: int = Field(
        8,
        ge=2,
        le=1000,
        title="Trials",
        description="Trainings that are begun; the first is the base itself.",
    )
    least_epochs: int = Field(
        2, ge=1, le=10_000, title="Least epochs", description="Epochs that even the worst trial is given."
    )
    keep: int = Field(
        3,
        ge=2,
        le=10,
        title="Reduction",
        description="One of so many trials goes on at each level: after the least epochs, so many times these, ...",
    )
    seed: int = Field(0, ge=0, lt=2**32, title="Seed", description="Trials are drawn from it.")
    space: tuple[SearchedField, ...] = Field(
        (
            SearchedField(name="optimizer.learning_rate", low=3e-4, high=1e-2, log=True),
            SearchedField(name="optimizer.weight_decay", low=1e-3, high=1e-1, log=True),
            SearchedField(name="batch_size", values=("16", "32", "64")),
        ),
        title="Space",
        description="Fields of a training that are varied together.",
    )


def draw_trials(base: TrainConfig, search: SearchConfig) -> tuple[TrainConfig, ...]:
    """Return different trainings: the base, and draws from the space; fewer where the space has no more.

    Raises UserFault for a field that a training does not have, or a value that it refuses.

    >>> [trial.batch_size for trial in draw_trials(TrainConfig(), SearchConfig(trials=3))]
    [32, 64, 32]
    """
    generator, trials = np.random.default_rng(search.seed), {base.digest: base}
    for _ in range(DRAWS * search.trials):
        if len(trials) == search.trials:
            break
        trial = _changed(base, {field.name: field.draw(generator) for field in search.space})
        trials.setdefault(trial.digest, trial)
    return tuple(trials.values())


def _changed(base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    changed = base.model_dump(mode="json")
    for name, value in values.items():
        *parts, last = name.split(".")
        place = changed
        for part in parts:
            place = place.get(part) if isinstance(place, dict) else None  # type: ignore[assignment]
        if not isinstance(place, dict) or last not in place:
            raise UserFault(
                f"a training has no field {name!r}: name one of docs/configuration.md, such as optimizer.learning_rate"
            )
        place[last] = value
    try:
        return TrainConfig.model_validate(changed)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "a training"
        raise UserFault(
            f"{where}: {fault['msg'].removeprefix('Value error, ')}: correct the space of the search, which this was "
            "drawn from"
        ) from None


def changes(base: TrainConfig, trial: TrainConfig, search: SearchConfig) -> str:
    """Return the fields of the space in which a trial differs from the base, with their values.

    >>> changes(TrainConfig(), TrainConfig(batch_size=64), SearchConfig())
    'batch_size 64'
    """
    values = [
        (field.name, *(_value(config, field.name) for config in (base, trial))) for field in search.space
    ]
    return ", ".join(f"{name} {value}" for name, before, value in values if value != before)


def _value(config: TrainConfig, name: str) -> Any:
    return reduce(getattr, name.split("."), config)


def _parsed(value: str) -> Any:
    """Return a value as JSON has it; what is no JSON is a text.

    >>> _parsed("16"), _parsed("true"), _parsed("resnet18")
    (16, True, 'resnet18')
    """
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
