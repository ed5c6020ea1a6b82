"""Sections of masks: the table of classes, which cases are shown, and the outlines over them."""

import numpy as np
import pytest

from imaging.statistics.segmentation import SegmentationPredictions, case_numbers
from tasks.report.page import ExampleViews, ReportData, render
from tasks.report.segmentation_sections import (
    CALLED,
    LEAST_SIDE,
    TRUTH,
    most_different_slice,
    overlay,
    segmentation_classes,
    worst_cases,
    worst_masks,
)
from tests.mask_examples import MaskArrays, discs

CLASSES = ("organ", "lesion")


def called_of(examples: MaskArrays, poor: int) -> np.ndarray:
    """Return the masks themselves, but for one case in which nothing is called."""
    called = examples.drawn.copy()
    called[poor] = 0
    return called


def predictions_of(examples: MaskArrays, called: np.ndarray) -> SegmentationPredictions:
    cases = [
        case_numbers(*one, (1.0,) * (called.ndim - 1))
        for one in zip(examples.drawn, called, examples.unknown_classes, strict=True)
    ]
    return SegmentationPredictions(
        cases=np.stack(cases),
        voxel_ml=np.full(len(called), 0.1),
        patients=examples.patient_keys,
        classes=CLASSES,
    )


def views_of(examples: MaskArrays, called: np.ndarray) -> ExampleViews:
    chosen = np.moveaxis(np.eye(3, dtype=np.float32)[called], -1, 1)
    return ExampleViews(
        images=examples.gather,
        outputs=lambda positions: {"probabilities": chosen[positions]},
        stored=examples.gather,
        masks=examples.masks,
    )


def test_each_class_has_a_row_with_its_measures_and_patients() -> None:
    examples = discs(4, classes=2)
    predictions = predictions_of(examples, called_of(examples, 1))
    section = segmentation_classes(predictions, predictions, views_of(examples, examples.drawn))
    assert section.head[:4] == ("Class", "Patients with it", "Dice", "Dice by patient")
    assert section.head[-1] == "Dice of the champion"
    assert [row[:2] for row in section.rows] == [("organ", "2"), ("lesion", "2")]
    assert all(len(row) == len(section.head) for row in section.rows)
    assert "(" in section.rows[0][2]


def test_the_worst_cases_come_first_and_unmeasured_ones_not_at_all() -> None:
    examples = discs(4, classes=2)
    examples.unknown_classes[3] = True
    predictions = predictions_of(examples, called_of(examples, 2))
    assert worst_cases(predictions, 2).tolist()[0] == 2
    assert sorted(worst_cases(predictions, 9).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16)])
def test_a_case_is_shown_with_its_dice_and_volumes(shape: tuple[int, ...]) -> None:
    examples = discs(2, shape, classes=2)
    called = called_of(examples, 1)
    predictions = predictions_of(examples, called)
    first, second = worst_masks(predictions, None, views_of(examples, called)).gallery
    assert (first.tone, second.tone) == ("wrong", "right")
    assert second.headline == "Dice 1.00" and second.lines[0] == "organ: 1.00, +0 ml"
    assert first.image.shape == (LEAST_SIDE, LEAST_SIDE, 3)
    assert (first.image == TRUTH).all(axis=-1).any() and not (first.image == CALLED).all(axis=-1).any()
    assert (second.image == CALLED).all(axis=-1).any()


def test_the_slice_that_differs_most_is_shown() -> None:
    truth, called = np.zeros((4, 5, 5), np.uint8), np.zeros((4, 5, 5), np.uint8)
    truth[1, :3] = called[1, :3] = 1
    truth[2, 0] = 1
    truth[3] = 255
    images = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((5, 5), np.uint8)
    assert most_different_slice(images, truth, called)[0][0, 0] == 2
    assert most_different_slice(images, called, called)[0][0, 0] == 1


def test_an_outline_is_around_each_class_and_unknown_pixels_have_none() -> None:
    mask = np.zeros((192, 192), np.uint8)
    mask[20:60, 20:100], mask[60:90, 20:100] = 1, 2
    mask[150:] = 255
    drawn = (overlay(np.zeros_like(mask), mask, np.zeros_like(mask)) == TRUTH).all(axis=-1)
    assert drawn[20, 20:100].all() and drawn[59, 20:100].all() and drawn[60, 20:100].all()
    assert not drawn[30:50, 30:90].any() and not drawn[140:].any()


def test_the_page_shows_the_table_and_the_colours() -> None:
    examples = discs(2, classes=2)
    predictions = predictions_of(examples, examples.drawn)
    views = views_of(examples, examples.drawn)
    sections = [make(predictions, None, views) for make in (segmentation_classes, worst_masks)]
    page = render(ReportData(title="t", created="c", sections=sections))
    assert "<h2>Classes</h2>" in page and "<td>lesion</td>" in page
    assert "Outlines: green" in page and page.count("data:image/png") == 2


def test_a_view_that_was_not_handed_in_is_no_empty_picture() -> None:
    examples = discs(1, classes=2)
    views = ExampleViews(images=examples.gather, outputs=dict)
    with pytest.raises(ValueError, match="hand in the view"):
        worst_masks(predictions_of(examples, examples.drawn), None, views)
