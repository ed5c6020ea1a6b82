"""Sections of a classifier: what is drawn, seen in the axes before they become a file, and which calls are shown."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from imaging.statistics.classification import ClassPredictions
from tasks.report import class_sections
from tasks.report.class_sections import surest, surest_calls
from tasks.report.page import ExampleViews
from tests.report_figures import decoded, legend, predictions_of


def every_figure(classes: int) -> Iterator[str]:
    candidate, champion = predictions_of(classes), predictions_of(classes, noise=2)
    yield class_sections.roc(candidate, champion)
    yield class_sections.precision_recall(candidate, champion)
    yield class_sections.confusion_matrix(candidate)
    yield class_sections.calibration(candidate, champion)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 10])
def test_every_figure_is_an_svg_that_equal_data_repeat(classes: int) -> None:
    first, second = list(every_figure(classes)), list(every_figure(classes))
    assert first == second
    assert all(uri.startswith("data:image/svg+xml;base64,") for uri in first)
    assert all(b"</svg>" in decoded(uri) for uri in first)


def test_a_figure_of_many_examples_stays_small() -> None:
    assert len(class_sections.roc(predictions_of(10, n=10_000, noise=3))) < 1_000_000


@pytest.mark.parametrize(
    "draw", [class_sections.roc, class_sections.precision_recall, class_sections.calibration]
)
def test_the_champion_is_drawn_below_the_candidate(
    draw: Callable[..., str], drawn: Callable[..., Axes]
) -> None:
    with_champion = legend(drawn(draw, predictions_of(2), predictions_of(2)))
    assert with_champion[0].startswith("Champion")
    assert with_champion[1].startswith("Candidate")
    assert not any(line.startswith("Champion") for line in legend(drawn(draw, predictions_of(2))))


def test_the_roc_marks_the_threshold(drawn: Callable[..., Axes]) -> None:
    predictions = predictions_of(2)
    marker = next(
        li for li in drawn(class_sections.roc, predictions).lines if "threshold" in str(li.get_label())
    )
    false = (predictions.predicted == 1) & (predictions.labels == 0)
    hit = (predictions.predicted == 1) & (predictions.labels == 1)
    assert (marker.get_xdata()[0], marker.get_ydata()[0]) == pytest.approx((false.sum() / 30, hit.sum() / 30))


def test_many_classes_are_drawn_each_and_as_a_mean(drawn: Callable[..., Axes]) -> None:
    axes = drawn(class_sections.roc, predictions_of(4))
    assert legend(axes) == ["Candidate, mean of classes"]
    assert len(axes.lines) == 1 + 4 + 1


def test_a_test_part_of_one_class_still_draws() -> None:
    one = replace(predictions_of(2), labels=np.zeros(60, dtype=int))
    for draw in (
        class_sections.roc,
        class_sections.precision_recall,
        class_sections.confusion_matrix,
        class_sections.calibration,
    ):
        assert decoded(draw(one)).rstrip().endswith(b"</svg>")


def test_the_confusion_matrix_writes_the_counts_of_rows_of_true_classes(drawn: Callable[..., Axes]) -> None:
    predictions = replace(
        predictions_of(2, n=3), labels=np.array([0, 0, 1]), probabilities=np.array([[1, 0], [0, 1], [0, 1.0]])
    )
    texts = [text.get_text() for text in drawn(class_sections.confusion_matrix, predictions).texts]
    assert texts == ["1\n50%", "1\n50%", "0\n0%", "1\n100%"]


def test_the_surest_calls_come_first_right_and_wrong_apart() -> None:
    second = np.array([0.9, 0.6, 0.2, 0.7])
    predictions = ClassPredictions(
        labels=np.array([1, 0, 0, 0]),
        probabilities=np.stack([1 - second, second], axis=1),
        patients=np.array(list("abcd")),
        classes=("dark", "bright"),
    )
    right, wrong = surest(predictions, 3)
    assert (right.tolist(), wrong.tolist()) == ([0, 2], [3, 1])


def test_of_units_one_image_is_shown_and_a_note_names_it() -> None:
    views = ExampleViews(images=lambda at: np.zeros((len(at), 8, 8), np.uint8), outputs=lambda at: {})
    assert surest_calls(predictions_of(2), None, views).note == ""
    of_studies = surest_calls(predictions_of(2), None, replace(views, unit="study"))
    assert of_studies.note.startswith("Of each study the image with the highest probability of “")
    assert of_studies.gallery[0].alt.startswith("Test study, ")


def test_wrong_calls_are_shown_before_right_ones() -> None:
    predictions = replace(
        predictions_of(2, n=3), labels=np.array([0, 0, 1]), probabilities=np.eye(2)[[0, 1, 1]]
    )
    views = ExampleViews(images=lambda positions: np.zeros((len(positions), 4, 4), np.uint8), outputs=dict)
    gallery = surest_calls(predictions, None, views).gallery
    assert [(image.headline, image.tone, image.lines) for image in gallery] == [
        ("Wrong", "wrong", ("true: class 0", "called: class 1, 1.00")),
        ("Right", "right", ("true: class 0", "called: class 0, 1.00")),
        ("Right", "right", ("true: class 1", "called: class 1, 1.00")),
    ]
