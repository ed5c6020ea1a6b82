"""Search space: trials are drawn from a seed, differ from each other, and are refused where a training would be."""

import numpy as np
import pytest
from pydantic import ValidationError

from imaging.errors import UserFault
from models.config import TrainConfig
from models.search_space import SearchConfig, SearchedField, changes, draw_trials

RATE = SearchedField(name="optimizer.learning_rate", low=1e-4, high=1e-2, log=True)


def test_the_first_trial_is_the_base() -> None:
    base = TrainConfig(network="small_cnn", epochs=3)
    assert draw_trials(base, SearchConfig())[0] == base


def test_trials_are_as_many_as_asked_for_and_all_different() -> None:
    trials = draw_trials(TrainConfig(), SearchConfig(trials=12))
    assert len({trial.digest for trial in trials}) == 12


def test_equal_seeds_draw_equal_trials_and_others_do_not() -> None:
    once, again, other = (draw_trials(TrainConfig(), SearchConfig(seed=seed)) for seed in (1, 1, 2))
    assert once == again
    assert once[1:] != other[1:]


def test_a_space_of_few_values_is_used_up() -> None:
    search = SearchConfig(trials=50, space=(SearchedField(name="batch_size", values=("32", "64")),))
    assert [trial.batch_size for trial in draw_trials(TrainConfig(), search)] == [32, 64]


def test_a_logarithmic_range_is_even_over_orders_of_magnitude() -> None:
    generator = np.random.default_rng(0)
    drawn = np.log10([RATE.draw(generator) for _ in range(2000)])
    counts, _ = np.histogram(drawn, bins=4, range=(-4, -2))
    assert counts.sum() == 2000
    assert counts.min() > 440


def test_a_drawn_number_has_four_digits() -> None:
    numbers = [RATE.draw(np.random.default_rng(seed)) for seed in range(9)]
    assert [float(f"{number:.3e}") for number in numbers] == numbers


def test_what_is_not_in_the_space_stays() -> None:
    base = TrainConfig(network="small_cnn", seed=5)
    assert {(trial.network, trial.seed) for trial in draw_trials(base, SearchConfig())} == {("small_cnn", 5)}


def test_differences_are_of_the_space_alone() -> None:
    search = SearchConfig(space=(RATE, SearchedField(name="augment.flip", values=("true",))))
    trial = draw_trials(TrainConfig(), search)[1]
    assert (
        changes(TrainConfig(), trial, search)
        == f"optimizer.learning_rate {trial.optimizer.learning_rate}, augment.flip True"
    )


@pytest.mark.parametrize("name", ["learning_rate", "optimizer.rate", "epochs.number"])
def test_a_field_that_no_training_has_is_named(name: str) -> None:
    search = SearchConfig(space=(SearchedField(name=name, values=("1", "2")),))
    with pytest.raises(UserFault, match=f"no field {name!r}"):
        draw_trials(TrainConfig(), search)


def test_a_value_that_a_training_refuses_is_named_with_its_field() -> None:
    search = SearchConfig(space=(SearchedField(name="batch_size", values=("0",)),))
    with pytest.raises(UserFault, match="batch_size: Input should be greater than or equal to 1"):
        draw_trials(TrainConfig(), search)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either values, or low and high"),
        ({"low": 1.0}, "give either values, or low and high"),
        ({"values": ("1",), "low": 1.0, "high": 2.0}, "give either values, or low and high"),
        ({"low": 2.0, "high": 1.0}, "low 2 must be less than high 1"),
        ({"low": 0.0, "high": 1.0, "log": True}, "needs a low of more than 0"),
    ],
)
def test_a_field_has_values_or_a_range(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchedField.model_validate({"name": "batch_size", **given})


@pytest.mark.parametrize("name", ["objective", "measure"])
def test_trials_of_different_measures_cannot_be_compared(name: str) -> None:
    with pytest.raises(ValidationError, match="what trials are compared by"):
        SearchedField(name=name, values=("loss",))
