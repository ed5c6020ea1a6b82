"""Measures and curves of a classifier against scikit-learn, with weights and ties, and what is undefined."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as oracle

from imaging.errors import UserFault
from imaging.statistics.classification import (
    GRID,
    MEASURES,
    ClassPredictions,
    best_threshold,
    confusion,
    curves_of,
    mean_curve,
    precision_recall_curve,
    roc_curve,
)
from imaging.statistics.intervals import value_of
from imaging.statistics.predictions import Floats, deciding


def binary(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> ClassPredictions:
    scores = np.asarray(scores, dtype=float)
    return ClassPredictions(
        labels=np.asarray(labels),
        probabilities=np.stack([1 - scores, scores], axis=1),
        patients=np.array([f"p{i}" for i in range(len(scores))]),
        classes=("plain", "contrast"),
        threshold=threshold,
    )


def multiclass(labels: ArrayLike, probabilities: ArrayLike) -> ClassPredictions:
    return ClassPredictions(
        labels=np.asarray(labels),
        probabilities=np.asarray(probabilities),
        patients=np.array([f"p{i}" for i in range(np.size(labels))]),
        classes=tuple(f"class {k}" for k in range(np.shape(probabilities)[1])),
    )


def value(name: str, predictions: ClassPredictions, weights: Floats | None = None) -> float:
    ones = np.ones(len(predictions.labels))
    return float(MEASURES[name].values(predictions, (ones if weights is None else weights)[None])[0])


Case = tuple[NDArray[np.int64], Floats, Floats]


@st.composite
def tied_binary(draw: st.DrawFn) -> Case:
    """Both classes, scores on a coarse grid so that many tie, and weights of which some are zero."""
    n = draw(st.integers(4, 30))
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))])
    scores = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))) / 5
    weights = np.array(
        [1, 1, *draw(st.lists(st.integers(0, 3), min_size=n - 2, max_size=n - 2))], dtype=float
    )
    return labels, scores, weights


@st.composite
def three_classes(draw: st.DrawFn) -> Case:
    seed = draw(st.integers(0, 2**32 - 1))
    n = draw(st.integers(6, 40))
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), generator.integers(3, size=n - 3)])
    raw = generator.integers(1, 5, size=(n, 3)).astype(float)
    weights = np.concatenate([np.ones(3), generator.uniform(0, 2, n - 3)])
    return labels, raw / raw.sum(axis=1, keepdims=True), weights


BINARY_ORACLES = {
    "auroc": lambda y, s, w: oracle.roc_auc_score(y, s, sample_weight=w),
    "auprc": lambda y, s, w: oracle.average_precision_score(y, s, sample_weight=w),
    "accuracy": lambda y, s, w: oracle.accuracy_score(y, s >= 0.5, sample_weight=w),
    "accuracy_argmax": lambda y, s, w: oracle.accuracy_score(y, s > 0.5, sample_weight=w),
    "precision": lambda y, s, w: oracle.precision_score(y, s >= 0.5, sample_weight=w, zero_division=np.nan),
    "recall": lambda y, s, w: oracle.recall_score(y, s >= 0.5, sample_weight=w),
    "specificity": lambda y, s, w: oracle.recall_score(y, s >= 0.5, sample_weight=w, pos_label=0),
    "f1": lambda y, s, w: oracle.f1_score(y, s >= 0.5, sample_weight=w),
    "brier": lambda y, s, w: oracle.brier_score_loss(y, s, sample_weight=w),
    "log_loss": lambda y, s, w: oracle.log_loss(y, s, sample_weight=w),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=60)
@given(case=tied_binary())
def test_a_binary_measure_equals_scikit_learn_with_weights_and_ties(name: str, case: Case) -> None:
    labels, scores, weights = case
    expected = BINARY_ORACLES[name](labels, scores, weights)
    assert value(name, binary(labels, scores), weights) == pytest.approx(expected, nan_ok=True)


def one_versus_rest(score: Callable[..., float]) -> Callable[..., float]:
    def mean(y: Floats, p: Floats, w: Floats) -> float:
        return float(np.mean([score(y == k, p[:, k], sample_weight=w) for k in range(p.shape[1])]))

    return mean


def called(score: Callable[..., float], **options: str) -> Callable[..., float]:
    return lambda y, p, w: score(y, p.argmax(1), sample_weight=w, **options)


MULTICLASS_ORACLES = {
    "auroc": lambda y, p, w: oracle.roc_auc_score(y, p, sample_weight=w, multi_class="ovr"),
    "auprc": one_versus_rest(oracle.average_precision_score),
    "accuracy": called(oracle.accuracy_score),
    "accuracy_argmax": called(oracle.accuracy_score),
    "recall": called(oracle.recall_score, average="macro"),
    "f1": called(oracle.f1_score, average="macro"),
    "brier": lambda y, p, w: oracle.brier_score_loss(y, p, sample_weight=w),
    "log_loss": lambda y, p, w: oracle.log_loss(y, p, sample_weight=w),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MULTICLASS_ORACLES)
@settings(max_examples=40)
@given(case=three_classes())
def test_a_measure_of_three_classes_equals_scikit_learn(name: str, case: Case) -> None:
    labels, probabilities, weights = case
    expected = MULTICLASS_ORACLES[name](labels, probabilities, weights)
    assert value(name, multiclass(labels, probabilities), weights) == pytest.approx(expected)


def test_precision_and_specificity_of_many_classes_are_macro_means() -> None:
    labels, called_as = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0])
    predictions = multiclass(labels, np.eye(3)[called_as])
    assert value("precision", predictions) == pytest.approx(
        oracle.precision_score(labels, called_as, average="macro")
    )
    assert value("specificity", predictions) == pytest.approx(np.mean([3 / 4, 3 / 4, 4 / 4]))


@pytest.mark.parametrize("name", MEASURES)
def test_each_row_of_weights_is_measured_alone(name: str) -> None:
    generator = np.random.default_rng(3)
    predictions = binary(generator.integers(2, size=40), generator.uniform(size=40))
    weights = generator.integers(0, 3, size=(5, 40)).astype(float)
    together = MEASURES[name].values(predictions, weights)
    assert together == pytest.approx([value(name, predictions, row) for row in weights])


@pytest.mark.parametrize("name", ["auroc", "auprc", "recall", "f1"])
def test_without_a_positive_the_measure_is_undefined(name: str) -> None:
    predictions = binary([0, 0, 1], [0.1, 0.2, 0.9])
    assert np.isnan(value(name, predictions, np.array([1.0, 1.0, 0.0])))


def test_precision_is_undefined_when_nothing_is_called_positive() -> None:
    assert np.isnan(value("precision", binary([0, 1], [0.1, 0.2])))


def test_a_class_that_a_draw_lacks_leaves_the_macro_mean_undefined() -> None:
    predictions = multiclass([0, 1, 2], np.eye(3))
    assert np.isnan(value("auroc", predictions, np.array([1.0, 1.0, 0.0])))


def test_all_scores_tied_give_half_the_area() -> None:
    assert value("auroc", binary([0, 1, 1, 0, 1], [0.5] * 5)) == 0.5


def test_the_threshold_itself_is_called_positive() -> None:
    assert binary([0, 1], [0.39, 0.4], threshold=0.4).predicted.tolist() == [0, 1]


def test_a_threshold_between_neighbouring_single_precision_scores_still_divides_them() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    probabilities = np.array([[1 - low, low], [1 - high, high]], dtype=np.float32)
    threshold = best_threshold(np.array([0, 1]), probabilities[:, 1])
    predictions = ClassPredictions(
        labels=np.array([0, 1]),
        probabilities=probabilities,
        patients=np.array(["a", "b"]),
        classes=("0", "1"),
        threshold=threshold,
    )
    assert predictions.predicted.tolist() == [0, 1]


def test_confusion_has_true_classes_in_its_rows() -> None:
    table = confusion(multiclass([0, 0, 2], np.eye(3)[[0, 1, 2]]), np.array([[1.0, 2.0, 5.0]]))
    assert table[0].tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 5]]


def test_measures_of_which_less_is_better_decide_nothing() -> None:
    less = {name for name, measure in MEASURES.items() if not measure.higher_is_better}
    assert less == {"brier", "log_loss"} == MEASURES.keys() - set(deciding(MEASURES))


def test_without_a_threshold_one_accuracy_repeats_the_other() -> None:
    assert multiclass([0, 1, 2], np.eye(3)).repeated == {"accuracy_argmax"}
    assert binary([0, 1], [0.1, 0.9]).repeated == frozenset()


@settings(max_examples=60)
@given(case=tied_binary())
def test_no_other_threshold_has_a_larger_youden_index(case: Case) -> None:
    labels, scores, _ = case

    def youden(threshold: float) -> float:
        predictions = binary(labels, scores, threshold)
        return value("recall", predictions) + value("specificity", predictions)

    others = [*np.unique(scores), 1.1]
    assert youden(best_threshold(labels, scores)) == pytest.approx(max(map(youden, others)))


def test_the_best_threshold_lies_midway_between_neighbouring_scores() -> None:
    assert best_threshold(np.array([0, 0, 1, 1]), np.array([0.2, 0.3, 0.5, 0.9])) == pytest.approx(0.4)


def test_of_equally_good_thresholds_the_lowest_is_taken() -> None:
    assert best_threshold(np.array([0, 1, 0, 1]), np.array([0.2, 0.4, 0.6, 0.8])) == pytest.approx(0.3)


def test_a_threshold_between_neighbouring_floats_divides_them() -> None:
    low, high = 0.5, np.nextafter(0.5, 1)
    threshold = best_threshold(np.array([0, 1]), np.array([low, high]))
    assert binary([0, 1], [low, high], threshold).predicted.tolist() == [0, 1]


def test_a_threshold_from_one_class_is_refused() -> None:
    with pytest.raises(UserFault, match="enlarge the validation split"):
        best_threshold(np.array([1, 1]), np.array([0.2, 0.9]))


def test_a_diverged_model_is_refused_with_a_remedy() -> None:
    with pytest.raises(UserFault, match="lower the learning rate"):
        binary([0, 1], [0.5, np.nan])


def test_no_examples_are_refused() -> None:
    with pytest.raises(UserFault, match="enlarge the test split"):
        multiclass(np.array([], dtype=int), np.zeros((0, 3)))


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="not 0 to 1"):
        binary([0, 2], [0.1, 0.2])


def test_a_threshold_for_three_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="pass None"):
        ClassPredictions(
            labels=np.array([0]),
            probabilities=np.ones((1, 3)) / 3,
            patients=np.array(["a"]),
            classes=("a", "b", "c"),
            threshold=0.5,
        )


def test_probabilities_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 labels of 2 classes"):
        ClassPredictions(
            labels=np.array([0, 1, 0]),
            probabilities=np.ones((2, 2)) / 2,
            patients=np.array(["a", "b", "c"]),
            classes=("a", "b"),
        )


def leaning(labels: NDArray[np.int64]) -> ClassPredictions:
    """Return probabilities of three classes that lean to the true one."""
    raw = np.random.default_rng(2).uniform(size=(len(labels), 3)) + np.eye(3)[labels]
    return multiclass(labels, raw / raw.sum(axis=1, keepdims=True))


def tied(n: int = 80) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    generator = np.random.default_rng(4)
    positive = generator.uniform(size=n) < 0.4
    return positive, np.round(np.clip(0.3 * positive + generator.uniform(size=n) * 0.7, 0, 1), 1)


def test_the_roc_has_scikit_learns_corners() -> None:
    x, y, _ = oracle.roc_curve(*tied(), drop_intermediate=False)
    assert np.array(roc_curve(*tied())) == pytest.approx(np.array([x, y]))


def test_the_area_below_the_roc_is_the_auroc() -> None:
    x, y = roc_curve(*tied())
    assert np.trapezoid(y, x) == pytest.approx(oracle.roc_auc_score(*tied()))


def test_the_area_below_precision_and_recall_is_the_average_precision() -> None:
    x, y = precision_recall_curve(*tied())
    assert np.trapezoid(y, x) == pytest.approx(oracle.average_precision_score(*tied()))


def test_recall_rises_from_none_to_all() -> None:
    recall, _ = precision_recall_curve(*tied())
    assert (recall[0], recall[-1]) == (0, 1)
    assert (np.diff(recall) >= 0).all()


def test_precision_ends_at_the_share_of_positives() -> None:
    positive, scores = tied()
    assert precision_recall_curve(positive, scores)[1][-1] == pytest.approx(positive.mean())


def test_two_classes_have_one_curve() -> None:
    predictions = ClassPredictions(
        labels=np.array([0, 1]), probabilities=np.eye(2), patients=np.array(["x", "y"]), classes=("a", "b")
    )
    assert len(curves_of(predictions, roc_curve)) == 1


def test_a_class_without_examples_has_no_curve() -> None:
    assert len(curves_of(leaning(np.array([0, 1, 0, 1])), roc_curve)) == 2


@pytest.mark.parametrize(("curve", "area"), [(roc_curve, "auroc"), (precision_recall_curve, "auprc")])
def test_the_area_below_the_mean_curve_is_the_macro_mean(curve: object, area: str) -> None:
    predictions = leaning(np.random.default_rng(1).integers(3, size=300))
    x, y = mean_curve(curves_of(predictions, curve))
    assert x is GRID
    assert np.trapezoid(y, x) == pytest.approx(value_of(predictions, area), abs=0.005)
