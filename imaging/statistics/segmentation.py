"""Predictions of masks and the measures of them, from a few numbers of each case and class.

A case is one example: an image, or a volume. Classes are those that are looked for; the background is none of them.
What of a class is measured in which case:

| truth | prediction | Dice, surface Dice | HD95 |
|---|---|---|---|
| not drawn in this case | any | left out | left out |
| empty | empty | left out: nothing was asked, and nothing was claimed | left out |
| empty | not empty (a false alarm) | 0 | the diagonal of the image |
| not empty | empty (a miss) | 0 | the diagonal of the image |

So a network that finds nothing has a Dice of 0 and the worst HD95, however many cases have nothing to find. Each
measure maps example weights (draws, n) to values (draws,); see `imaging.statistics.predictions`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UserFault
from imaging.statistics.predictions import Floats, MeasureDefinition, difference
from imaging.statistics.surface_distance import TOLERANCE_MM, surface_agreement

UNKNOWN_PIXEL = 255
"""In a mask: nobody says what this pixel is; it is left out of every measure, and of the loss."""

CASE_NUMBERS = ("truth", "predicted", "overlap", "hd95_mm", "surface_dice")
"""What is kept of a class in a case: three counts of pixels, and two measures of surfaces. NaN: not measured."""


def case_numbers(
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    unknown_classes: NDArray[np.bool_],
    spacing_mm: Sequence[float] | None,
) -> Floats:
    """Return (classes, len(CASE_NUMBERS)) numbers of a case from its masks of class numbers, 0 is background.

    `unknown_classes` (classes,) were not drawn in it; class number k + 1 is column k. Without a spacing (one number
    for each axis of the masks) no surface is measured.
    """
    numbers = np.full((len(unknown_classes), len(CASE_NUMBERS)), np.nan)
    known = truth != UNKNOWN_PIXEL
    if not known.any():
        return numbers
    for k in np.flatnonzero(~unknown_classes):
        # Cut out of both: a border of the unknown is a border of both masks.
        drawn, called = (truth == k + 1), (predicted == k + 1) & known
        numbers[k, :3] = drawn.sum(), called.sum(), (drawn & called).sum()
        if spacing_mm is not None:
            numbers[k, 3:] = surface_agreement(drawn, called, spacing_mm)
    return numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentationPredictions:
    """What was measured of each case: `cases` are (n, classes, len(CASE_NUMBERS)), see `case_numbers`.

    `voxel_ml` (n,) are the millilitres of a pixel, NaN where the spacing is not known; `patients` (n,) are patient
    keys.
    """

    cases: Floats
    voxel_ml: Floats
    patients: NDArray[np.str_]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n, k = len(self.patients), len(self.classes)
        if self.cases.shape != (n, k, len(CASE_NUMBERS)) or self.voxel_ml.shape != (n,) or k < 1:
            raise ValueError(
                f"{n} patients and {k} classes need cases ({n}, {k}, {len(CASE_NUMBERS)}) and {n} sizes of a pixel, "
                f"got {self.cases.shape} and {self.voxel_ml.shape}; at least 1 class"
            )
        if n == 0:
            raise UserFault("There are 0 examples to measure; at least 1 is needed: enlarge the test split.")

    @property
    def truth(self) -> Floats:
        """Pixels of each class in the truth (n, classes)."""
        return self.cases[..., 0]

    @property
    def predicted(self) -> Floats:
        """Pixels that are called so (n, classes)."""
        return self.cases[..., 1]

    @property
    def dice(self) -> Floats:
        """Dice of each case and class (n, classes); NaN where nothing is measured."""
        return _dice(self.cases[..., :3])

    @property
    def volume_difference_ml(self) -> Floats:
        """Predicted - true volume of each case and class (n, classes)."""
        return (self.predicted - self.truth) * self.voxel_ml[:, None]

    @property
    def measures(self) -> Mapping[str, MeasureDefinition]:
        """The means over the classes, and each measure of each class as in `dice[lesion]`."""
        return MEASURES | {
            f"{name}[{one}]": MeasureDefinition(
                title=f"{definition.title}, {one}",
                values=partial(_of_class, PER_CLASS[name], k),
                higher_is_better=definition.higher_is_better,
                decides=definition.decides,
            )
            for name, definition in MEASURES.items()
            for k, one in enumerate(self.classes)
        }

    @property
    def reported(self) -> tuple[str, ...]:
        """The means over the classes; those in mm or ml only where the spacing is known."""
        surfaces = ("surface_dice", "hd95_mm") if not np.isnan(self.cases[..., 3]).all() else ()
        volumes = ("volume_difference_ml",) if not np.isnan(self.voxel_ml).all() else ()
        return ("dice", "patient_dice", *surfaces, *volumes, "missed", "false_alarms")

    @property
    def repeated(self) -> frozenset[str]:
        """Where each patient has one case, both kinds of Dice are one."""
        single = len(np.unique(self.patients)) == len(self.patients)
        return frozenset({"patient_dice"} if single else ())

    def too_few_patients(self, least: int) -> str:
        """Return which class is drawn in fewer than `least` patients, or nothing."""
        counts = [len(np.unique(self.patients[self.truth[:, k] > 0])) for k in range(len(self.classes))]
        fewest = int(np.argmin(counts))
        if counts[fewest] >= least:
            return ""
        return (
            f"the gate asks for {least} with each class among the test patients and '{self.classes[fewest]}' is drawn "
            f"in {counts[fewest]}; draw it in more patients or lower min_patients."
        )

    def useless(self) -> str:
        """Return that no pixel of any class is called right, or nothing."""
        if np.nansum(self.cases[..., 2]) or not np.nansum(self.truth):
            return ""
        return f"it calls no pixel right that is {' or '.join(repr(one) for one in self.classes)}."

    def not_comparable(self, champion: "SegmentationPredictions") -> str:
        """Return why a champion of other classes or of other test examples cannot be compared, or nothing."""
        same = np.array_equal(np.isnan(self.truth), np.isnan(champion.truth)) and np.array_equal(
            self.patients, champion.patients
        )
        examples = [len(champion.patients), len(self.patients)]
        return difference("classes", [champion.classes, self.classes], examples, same_examples=same)


def dice(predictions: SegmentationPredictions, weights: Floats) -> Floats:
    """Return the mean Dice of the cases, (draws, classes)."""
    return _mean_of_cases(predictions.dice, weights)


def patient_dice(predictions: SegmentationPredictions, weights: Floats) -> Floats:
    """Return the mean of the patients, whose images are counted together, (draws, classes).

    It is what slices of one volume ask for: a slice at the end of an organ has few pixels and a poor Dice.
    """
    _, first, owner = np.unique(predictions.patients, return_index=True, return_inverse=True)
    counts = np.zeros((len(first), len(predictions.classes), 3))
    np.add.at(counts, owner, np.nan_to_num(predictions.cases[..., :3]))
    return _mean_of_cases(_dice(counts), weights[:, first])


def surface_dice(predictions: SegmentationPredictions, weights: Floats) -> Floats:
    """Return the mean surface Dice of the cases, (draws, classes)."""
    return _mean_of_cases(predictions.cases[..., 4], weights)


def hd95_mm(predictions: SegmentationPredictions, weights: Floats) -> Floats:
    """Return the mean HD95 of the cases, (draws, classes)."""
    return _mean_of_cases(predictions.cases[..., 3], weights)


def volume_difference_ml(predictions: SegmentationPredictions, weights: Floats) -> Floats:
    """Return the mean size of the difference of volumes, (draws, classes)."""
    return _mean_of_cases(np.abs(predictions.volume_difference_ml), weights)


def missed(predictions: SegmentationPredictions, weights: Floats) -> Floats:
    """Return the share of cases with a class in which nothing is called so, (draws, classes)."""
    return _mean_of_cases(np.where(predictions.truth > 0, predictions.predicted == 0, np.nan), weights)


def false_alarms(predictions: SegmentationPredictions, weights: Floats) -> Floats:
    """Return the share of cases without a class in which something is called so, (draws, classes); 0 of none."""
    empty = predictions.truth == 0
    alarms = _mean_of_cases(np.where(empty, predictions.predicted > 0, np.nan), weights)
    return np.where(np.isnan(alarms), 0.0, alarms)


PER_CLASS: dict[str, Callable[[SegmentationPredictions, Floats], Floats]] = {
    one.__name__: one
    for one in (dice, patient_dice, surface_dice, hd95_mm, volume_difference_ml, missed, false_alarms)
}


def _mean_of_classes(name: str, predictions: SegmentationPredictions, weights: Floats) -> Floats:
    mean: Floats = PER_CLASS[name](predictions, weights).mean(axis=1)
    return mean


def _of_class(
    measure: Callable[[SegmentationPredictions, Floats], Floats],
    k: int,
    predictions: SegmentationPredictions,
    weights: Floats,
) -> Floats:
    return measure(predictions, weights)[:, k]


def _definition(name: str, title: str, *, higher_is_better: bool = True) -> MeasureDefinition:
    values = partial(_mean_of_classes, name)
    return MeasureDefinition(
        title=title, values=values, higher_is_better=higher_is_better, decides=higher_is_better
    )


MEASURES: dict[str, MeasureDefinition] = {
    "dice": _definition("dice", "Dice"),
    "patient_dice": _definition("patient_dice", "Dice by patient"),
    "surface_dice": _definition("surface_dice", f"Surface Dice at {TOLERANCE_MM:g} mm"),
    "hd95_mm": _definition("hd95_mm", "HD95 (mm)", higher_is_better=False),
    "volume_difference_ml": _definition(
        "volume_difference_ml", "Volume difference (ml)", higher_is_better=False
    ),
    "missed": _definition("missed", "Missed cases", higher_is_better=False),
    "false_alarms": _definition("false_alarms", "False alarms", higher_is_better=False),
}
"""The measures by name: means over the classes of the means over the cases."""


def _dice(counts: Floats) -> Floats:
    """Return 2 x overlap / (truth + predicted) of counts (..., 3); NaN where both are empty."""
    whole = counts[..., 0] + counts[..., 1]
    return np.divide(2 * counts[..., 2], whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _mean_of_cases(values: Floats, weights: Floats) -> Floats:
    """Return the weighted mean over the cases in which a class is measured, (draws, classes); NaN of none."""
    measured = ~np.isnan(values)
    total, count = weights @ np.nan_to_num(values), weights @ measured.astype(np.float64)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
