"""The patient bootstrap: what is drawn, what the interval means, and that it is repeatable."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from imaging.statistics import intervals
from imaging.statistics.classification import MEASURES, ClassPredictions
from imaging.statistics.intervals import Measure, bootstrap, measure_all, patient_weights, summarize


def predictions_of(patients: ArrayLike, labels: ArrayLike, scores: ArrayLike) -> ClassPredictions:
    scores = np.asarray(scores, dtype=float)
    return ClassPredictions(
        labels=np.asarray(labels),
        probabilities=np.stack([1 - scores, scores], axis=1),
        patients=np.asarray(patients),
        classes=("normal", "lesion"),
        threshold=0.5,
    )


def sample(n: int = 200, images_each: int = 1, seed: int = 0) -> ClassPredictions:
    """Patients with one class each, whose images are exact copies of each other."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=n)
    scores = np.clip(0.5 + 0.2 * (labels - 0.5) + generator.normal(0, 0.2, n), 0, 1)
    keys = [f"p{i:04d}" for i in range(n)]
    return predictions_of(*(np.repeat(part, images_each) for part in (keys, labels, scores)))


def rows(patients: ArrayLike, draws: int, seed: int) -> NDArray[np.float64]:
    return np.concatenate(list(patient_weights(np.asarray(patients), draws, seed)))


def test_images_of_one_patient_are_always_drawn_together() -> None:
    weights = rows(["b", "a", "b", "c"], draws=50, seed=1)
    assert np.array_equal(weights[:, 0], weights[:, 2])


def test_as_many_patients_are_drawn_as_there_are() -> None:
    weights = rows(["a", "b", "c", "c", "c"], draws=50, seed=1)
    assert (weights[:, :3].sum(axis=1) == 3).all()


def test_every_patient_is_drawn_once_on_average() -> None:
    weights = rows([f"p{i}" for i in range(20)], draws=4000, seed=1)
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.1)


def test_a_drawn_patient_can_come_more_than_once() -> None:
    assert rows(["a", "b", "c"], draws=50, seed=1).max() == 3


def test_the_seed_repeats_the_draws_and_another_does_not() -> None:
    patients = ["a", "b", "c", "d"]
    assert np.array_equal(rows(patients, 20, seed=5), rows(patients, 20, seed=5))
    assert not np.array_equal(rows(patients, 20, seed=5), rows(patients, 20, seed=6))


def test_small_blocks_draw_the_same_as_one_large_block(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = [f"p{i // 2}" for i in range(14)]
    whole = rows(patients, 101, seed=2)
    monkeypatch.setattr(intervals, "BLOCK_VALUES", 14 * 4)
    blocks = list(patient_weights(np.asarray(patients), 101, 2))
    assert max(len(block) for block in blocks) == 4
    assert np.array_equal(np.concatenate(blocks), whole)


def test_more_examples_than_fit_a_block_are_drawn_one_row_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intervals, "BLOCK_VALUES", 2)
    assert [block.shape for block in patient_weights(np.array(["a", "b", "c"]), 2, 0)] == [(1, 3), (1, 3)]


def test_the_draws_of_a_measure_equal_it_on_resampled_examples() -> None:
    predictions = sample(30)
    drawn = bootstrap(predictions, ["accuracy"], draws=5, seed=3)["accuracy"]
    right = predictions.predicted == predictions.labels
    expected = [
        np.repeat(right, row.astype(int)).mean() for row in rows(predictions.patients, draws=5, seed=3)
    ]
    assert drawn == pytest.approx(expected)


def test_the_interval_of_accuracy_is_as_wide_as_the_normal_one() -> None:
    measure = measure_all(sample(1000), ["accuracy"])["accuracy"]
    half = 1.96 * np.sqrt(measure.value * (1 - measure.value) / 1000)
    assert (measure.lower, measure.upper) == pytest.approx(
        (measure.value - half, measure.value + half), abs=0.2 * half
    )


def test_copies_of_an_image_do_not_narrow_the_interval() -> None:
    single = measure_all(sample(images_each=1), ["auroc"], draws=400)["auroc"]
    copied = measure_all(sample(images_each=9), ["auroc"], draws=400)["auroc"]
    assert (copied.lower, copied.upper) == pytest.approx((single.lower, single.upper))


def test_about_95_of_100_intervals_cover_the_truth() -> None:
    covering = 0
    for seed in range(100):
        right = np.random.default_rng(seed).uniform(size=150) < 0.8
        predictions = predictions_of([f"p{i}" for i in range(150)], np.ones(150, dtype=int), right * 1.0)
        measure = measure_all(predictions, ["accuracy"], draws=300, seed=seed)["accuracy"]
        covering += measure.lower <= 0.8 <= measure.upper
    assert 88 <= covering <= 99


def test_patients_and_examples_are_counted_apart() -> None:
    measure = measure_all(sample(40, images_each=3), ["auroc"], draws=50)["auroc"]
    assert (measure.patients, measure.examples) == (40, 120)


def test_draws_without_a_positive_are_counted_and_left_out() -> None:
    predictions = predictions_of(["a", "b", "c"], [0, 0, 1], [0.2, 0.6, 0.9])
    measure = measure_all(predictions, ["auroc"], draws=1000)["auroc"]
    # A draw of three misses the one positive, or is nothing else, in (8 + 1) of 27 cases.
    assert measure.undefined_draws == pytest.approx(1000 * 9 / 27, abs=60)
    assert measure.value == 1


def test_a_measure_that_no_draw_defines_is_undefined() -> None:
    measure = measure_all(predictions_of(["a", "b"], [0, 0], [0.1, 0.2]), ["auroc"], draws=10)["auroc"]
    assert np.isnan([measure.value, measure.lower, measure.upper]).all()
    assert measure.undefined_draws == 10
    assert str(measure) == "undefined"


def test_by_default_every_measure_is_taken() -> None:
    assert measure_all(sample(30), draws=10).keys() == MEASURES.keys()


def test_a_measure_becomes_json() -> None:
    measure = measure_all(sample(30), ["brier"], draws=10)["brier"]
    assert Measure(**json.loads(json.dumps(asdict(measure)))) == measure


def test_a_measure_reads_as_value_and_interval() -> None:
    drawn, patients = np.linspace(0.87, 0.95, 101), np.array(["a", "b"])
    assert str(summarize("auroc", MEASURES["auroc"], 0.9124, drawn, patients)) == "0.912 (0.872-0.948)"


def test_one_patient_has_no_interval() -> None:
    predictions = predictions_of(["a"] * 4, [0, 0, 1, 1], [0.2, 0.6, 0.5, 0.9])
    assert str(measure_all(predictions, ["auroc"], draws=200)["auroc"]) == "0.750 (n/a)"


@pytest.mark.parametrize("others", [1, 2, 40])
def test_the_only_patient_of_a_class_gives_no_interval(others: int) -> None:
    patients = ["negative"] * 4 + [f"p{n}" for n in range(others)]
    predictions = predictions_of(patients, [0] * 4 + [1] * others, [0.1, 0.2, 0.3, 0.9] + [0.8] * others)
    measures = measure_all(predictions, ["specificity", "accuracy"], draws=200)
    assert str(measures["specificity"]) == "0.750 (n/a)"
    assert "n/a" not in str(measures["accuracy"])


@pytest.mark.parametrize("each", [2, 3, 30])
def test_a_perfect_measure_of_several_patients_of_a_class_keeps_its_interval(each: int) -> None:
    patients, labels = [f"p{n}" for n in range(2 * each)], [0] * each + [1] * each
    measure = measure_all(predictions_of(patients, labels, [float(one) for one in labels]), ["auroc"])[
        "auroc"
    ]
    assert str(measure) == "1.000 (1.000-1.000)"
