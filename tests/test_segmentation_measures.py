"""Measures of masks: what is kept of a case, what is left out, and what a network gets that finds nothing."""

from dataclasses import replace

import numpy as np
import pytest

from imaging.errors import UserFault
from imaging.statistics.intervals import measure_all, value_of
from imaging.statistics.segmentation import (
    CASE_NUMBERS,
    MEASURES,
    PER_CLASS,
    SegmentationPredictions,
    case_numbers,
)
from imaging.statistics.verdict import GateConfig, decide

CLASSES = ("organ", "lesion")
NONE_UNKNOWN = np.zeros(2, bool)


def mask_of(*rows: tuple[int, int, int], size: int = 10) -> np.ndarray:
    """Return a mask whose rows hold a number up to a column: (row, columns, number)."""
    mask = np.zeros((size, size), np.uint8)
    for row, columns, number in rows:
        mask[row, :columns] = number
    return mask


def predictions_of(
    *pairs: tuple[np.ndarray, np.ndarray],
    patients: tuple[str, ...] = (),
    unknown: tuple[np.ndarray, ...] = (),
    spacing: tuple[float, float] | None = (1.0, 1.0),
) -> SegmentationPredictions:
    unknown = unknown or (NONE_UNKNOWN,) * len(pairs)
    return SegmentationPredictions(
        cases=np.stack([case_numbers(*pair, one, spacing) for pair, one in zip(pairs, unknown, strict=True)]),
        voxel_ml=np.full(len(pairs), np.nan if spacing is None else 0.01),
        patients=np.array(patients or [f"p{n}" for n in range(len(pairs))]),
        classes=CLASSES,
    )


ORGAN, LESION = mask_of((2, 8, 1), (3, 8, 1)), mask_of((2, 8, 1), (7, 4, 2))
EMPTY = mask_of()


def test_of_each_class_the_pixels_are_counted() -> None:
    numbers = case_numbers(LESION, mask_of((2, 6, 1), (7, 5, 2), (8, 5, 2)), NONE_UNKNOWN, None)
    assert numbers[:, :3].tolist() == [[8, 6, 6], [4, 10, 4]]
    assert np.isnan(numbers[:, 3:]).all()


def test_dice_is_twice_the_overlap_over_both() -> None:
    made = predictions_of((LESION, mask_of((2, 6, 1), (7, 5, 2), (8, 5, 2))))
    assert made.dice.tolist() == [[12 / 14, 8 / 14]]
    assert value_of(made, "dice") == pytest.approx((12 / 14 + 8 / 14) / 2)
    assert value_of(made, "dice[lesion]") == pytest.approx(8 / 14)


def test_a_class_that_was_not_drawn_in_a_case_is_left_out() -> None:
    unknown = np.array([False, True])
    made = predictions_of((LESION, LESION), (ORGAN, LESION), unknown=(NONE_UNKNOWN, unknown))
    assert np.isnan(made.cases[1, 1]).all()
    assert value_of(made, "dice[lesion]") == 1
    assert value_of(made, "false_alarms[lesion]") == 0


def test_pixels_that_nobody_knows_are_left_out() -> None:
    truth = LESION.copy()
    truth[7:] = 255
    numbers = case_numbers(truth, mask_of((2, 8, 1), (9, 9, 2)), NONE_UNKNOWN, (1.0, 1.0))
    assert numbers[:, :3].tolist() == [[8, 8, 8], [0, 0, 0]]
    assert numbers[0, 3:].tolist() == [0, 1]


def test_a_case_without_a_known_pixel_is_not_measured() -> None:
    assert np.isnan(case_numbers(np.full((4, 4), 255, np.uint8), EMPTY[:4, :4], NONE_UNKNOWN, None)).all()


def test_nothing_in_truth_and_prediction_is_left_out_of_the_mean() -> None:
    made = predictions_of((LESION, mask_of((2, 8, 1), (7, 2, 2))), (ORGAN, ORGAN))
    assert value_of(made, "dice[lesion]") == pytest.approx(2 / 3)
    assert value_of(made, "hd95_mm[lesion]") == pytest.approx(1.85)


def test_a_false_alarm_has_no_dice_and_the_diagonal_as_distance() -> None:
    made = predictions_of((LESION, LESION), (ORGAN, ORGAN + mask_of((7, 4, 2))))
    assert value_of(made, "dice[lesion]") == 0.5
    assert value_of(made, "hd95_mm[lesion]") == pytest.approx(200**0.5 / 2)
    assert value_of(made, "false_alarms[lesion]") == 1
    assert value_of(made, "false_alarms") == 0.5


def test_a_network_that_finds_nothing_is_the_worst_by_every_measure() -> None:
    """MONAI's mean HD95 is 0 there, see docs/segmentation.md."""
    truths = [LESION, ORGAN, LESION]
    nothing = predictions_of(*((truth, EMPTY) for truth in truths))
    poor = predictions_of(*((truth, mask_of((0, 1, 1), (0, 2, 2), (0, 1, 1))) for truth in truths))
    for name in ("dice", "patient_dice", "surface_dice", "hd95_mm", "missed"):
        better = 1 if MEASURES[name].higher_is_better else -1
        assert better * value_of(nothing, name) <= better * value_of(poor, name)
    assert value_of(nothing, "hd95_mm") == pytest.approx(200**0.5)
    assert value_of(nothing, "missed") == 1
    assert "calls no pixel right that is 'organ' or 'lesion'" in nothing.useless()


def test_who_calls_a_pixel_right_is_of_some_use() -> None:
    assert predictions_of((LESION, ORGAN)).useless() == ""


def test_where_nothing_is_drawn_nobody_is_called_useless() -> None:
    assert predictions_of((EMPTY, EMPTY)).useless() == ""


def test_slices_of_a_patient_are_counted_together_in_dice_by_patient() -> None:
    thin = mask_of((0, 1, 1))
    made = predictions_of((ORGAN, ORGAN), (thin, mask_of((9, 1, 1))), patients=("a", "a"))
    assert value_of(made, "dice[organ]") == 0.5
    assert value_of(made, "patient_dice[organ]") == pytest.approx(32 / 34)


def test_dice_by_patient_is_not_shown_twice_where_each_has_one_case() -> None:
    assert predictions_of((ORGAN, ORGAN), (LESION, LESION)).repeated == {"patient_dice"}
    assert not predictions_of((ORGAN, ORGAN), (LESION, LESION), patients=("a", "a")).repeated


def test_the_volume_difference_is_in_millilitres() -> None:
    made = predictions_of((LESION, mask_of((7, 2, 2))), (LESION, mask_of((7, 8, 2))))
    assert made.volume_difference_ml[:, 1].tolist() == [-0.02, 0.04]
    assert value_of(made, "volume_difference_ml[lesion]") == pytest.approx(0.03)


def test_without_a_spacing_nothing_in_mm_is_shown() -> None:
    assert predictions_of((LESION, LESION), spacing=None).reported == (
        "dice",
        "patient_dice",
        "missed",
        "false_alarms",
    )
    assert "hd95_mm" in predictions_of((LESION, LESION)).reported


def test_the_interval_is_by_patient() -> None:
    """Ten images of a patient weigh as one draw: with one patient there is no interval."""
    pairs = [(LESION, mask_of((2, n, 1), (7, 2, 2))) for n in range(1, 9)]
    one = measure_all(predictions_of(*pairs, patients=("a",) * 8), ["dice"], draws=200)["dice"]
    each = measure_all(predictions_of(*pairs), ["dice"], draws=200)["dice"]
    assert np.isnan(one.lower) and one.patients == 1
    assert each.lower < each.value < each.upper


def test_weights_count_a_case_as_often_as_it_was_drawn() -> None:
    made = predictions_of((ORGAN, ORGAN), (ORGAN, mask_of((2, 8, 1))))
    weights = np.array([[3.0, 1.0]])
    assert PER_CLASS["dice"](made, weights)[0, 0] == pytest.approx((3 + 16 / 24) / 4)
    assert PER_CLASS["patient_dice"](made, weights)[0, 0] == pytest.approx((3 + 16 / 24) / 4)


@pytest.mark.parametrize("measure", [None, "dice[lesion]", "surface_dice"])
def test_the_gate_decides_on_dice_or_on_that_of_a_class(measure: str | None) -> None:
    pairs = [(LESION, LESION)] * 5
    verdict = decide(predictions_of(*pairs), None, GateConfig(measure=measure, min_patients=5, draws=200))
    assert verdict.promote and verdict.measure == (measure or "dice")


def test_the_gate_cannot_decide_on_a_distance() -> None:
    with pytest.raises(UserFault, match="cannot decide on 'hd95_mm'"):
        decide(predictions_of((LESION, LESION)), None, GateConfig(measure="hd95_mm", draws=200))


def test_a_class_that_too_few_patients_have_stops_the_gate() -> None:
    made = predictions_of((LESION, LESION), (ORGAN, ORGAN))
    assert "'lesion' is drawn in 1" in made.too_few_patients(2)
    assert not made.too_few_patients(1)


def test_models_of_other_classes_or_cases_are_not_compared() -> None:
    made = predictions_of((LESION, LESION), (ORGAN, ORGAN))
    assert "under another model name" in made.not_comparable(replace(made, classes=("organ", "cyst")))
    assert "same test examples" in made.not_comparable(predictions_of((LESION, LESION)))
    assert not made.not_comparable(made)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"cases": np.zeros((2, 2, 3))}, r"need cases \(2, 2, 5\)"),
        ({"voxel_ml": np.ones(3)}, "sizes of a pixel"),
        ({"classes": ()}, "at least 1 class"),
    ],
)
def test_numbers_of_another_shape_are_refused(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        replace(predictions_of((LESION, LESION), (ORGAN, ORGAN)), **changes)  # type: ignore[arg-type]


def test_no_example_at_all_is_the_users_fault() -> None:
    with pytest.raises(UserFault, match="enlarge the test split"):
        SegmentationPredictions(
            cases=np.zeros((0, 2, len(CASE_NUMBERS))),
            voxel_ml=np.zeros(0),
            patients=np.zeros(0, np.str_),
            classes=CLASSES,
        )
