"""Report sections of masks: the measures of each class, and the poorest masks of test cases, drawn over the images."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imaging.statistics.intervals import measure_all
from imaging.statistics.segmentation import MEASURES, UNKNOWN_PIXEL, SegmentationPredictions
from tasks.report.page import ExampleViews, GalleryImage, Section

CASES = 12
"""So many are shown, the worst first."""
POOR = 0.7
"""Of a Dice below it the headline is red: it is the default floor of the gate."""
TRUTH, CALLED = (64, 196, 99), (255, 140, 26)
"""Colours of the outlines: green is what was drawn, orange what the model calls."""
LEAST_SIDE = 192
"""Smaller images are enlarged to so many pixels, for an outline is one pixel wide."""

Mask = NDArray[np.uint8]


def segmentation_classes(
    candidate: SegmentationPredictions, champion: SegmentationPredictions | None, views: ExampleViews
) -> Section:
    """Return the measures of each class with their intervals, and the patients in whom it is drawn."""
    shown = [name for name in candidate.reported if name not in candidate.repeated]
    names = [f"{name}[{one}]" for one in candidate.classes for name in shown]
    measures = measure_all(candidate, names)
    before = {} if champion is None else measure_all(champion, [f"dice[{one}]" for one in champion.classes])
    rows = []
    for k, one in enumerate(candidate.classes):
        drawn = len(np.unique(candidate.patients[candidate.truth[:, k] > 0]))
        own = [str(measures[f"{name}[{one}]"]) for name in shown]
        of_champion = [str(before.get(f"dice[{one}]", ""))] if champion else []
        rows.append((one, str(drawn), *own, *of_champion))
    head = ("Class", "Patients with it", *(MEASURES[name].title for name in shown))
    return Section(
        title="Classes",
        head=(*head, *(["Dice of the champion"] if champion else [])),
        rows=rows,
        note="A case without a class, in truth and prediction, is left out of Dice and distances. A miss and a false "
        "alarm have a Dice of 0 and the diagonal of the image as distance. What was not drawn in an image is left out.",
    )


def worst_masks(
    candidate: SegmentationPredictions, champion: SegmentationPredictions | None, views: ExampleViews
) -> Section:
    """Return the test cases of the lowest Dice, each with both outlines; of a volume the slice that differs most."""
    return Section(
        title="Worst cases",
        note="Outlines: green is drawn by the reader, orange called by the candidate. Of a volume it is the slice with "
        "the most pixels that differ.",
        gallery=list(_gallery(candidate, views)),
    )


def worst_cases(predictions: SegmentationPredictions, count: int) -> NDArray[np.int64]:
    """Return the positions of the cases of the lowest mean Dice, lowest first; what is not measured is left out."""
    means = _case_means(predictions)
    order = np.argsort(means, kind="stable")
    return order[np.isfinite(means[order])][:count]


def _case_means(predictions: SegmentationPredictions) -> NDArray[np.float64]:
    """Return the mean Dice of the classes that are measured in each case (n,); NaN of none."""
    measured = np.isfinite(predictions.dice)
    total, count = np.nansum(predictions.dice, axis=1), measured.sum(axis=1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _gallery(predictions: SegmentationPredictions, views: ExampleViews) -> Iterator[GalleryImage]:
    means = _case_means(predictions)
    for position in worst_cases(predictions, CASES):
        # One at a time: a few volumes of probabilities would fill the memory.
        one = np.array([position])
        image, truth = views.stored(one)[0], views.masks(one)[0]
        called = views.outputs(one)["probabilities"][0].argmax(axis=0).astype(np.uint8)
        yield GalleryImage(
            image=overlay(*most_different_slice(image, truth, called)),
            alt="Test image with the outlines of both masks",
            headline=f"Dice {means[position]:.2f}",
            tone="wrong" if means[position] < POOR else "right",
            lines=tuple(_lines(predictions, int(position))),
        )


def _lines(predictions: SegmentationPredictions, position: int) -> Iterator[str]:
    for k, name in enumerate(predictions.classes):
        dice, difference = predictions.dice[position, k], predictions.volume_difference_ml[position, k]
        if np.isfinite(dice):
            yield f"{name}: {dice:.2f}" + (f", {difference:+.3g} ml" if np.isfinite(difference) else "")


def most_different_slice(image: Mask, truth: Mask, called: Mask) -> tuple[Mask, Mask, Mask]:
    """Return the slice of a volume in which most pixels differ, or of equal masks most are drawn; an image as it is."""
    if image.ndim == 2:
        return image, truth, called
    known = truth != UNKNOWN_PIXEL
    wrong, drawn = (truth != called) & known, (truth > 0) & known
    sizes = zip(wrong.sum(axis=(1, 2)), drawn.sum(axis=(1, 2)), strict=True)
    at = max(enumerate(sizes), key=lambda one: one[1])[0]
    return image[at], truth[at], called[at]


def overlay(image: Mask, truth: Mask, called: Mask) -> Mask:
    """Return colours (height, width, 3) of a grey image with the outlines of both masks, enlarged where it is small."""
    times = -(-LEAST_SIDE // max(image.shape))
    grey, *masks = (np.kron(one, np.ones((times, times), np.uint8)) for one in (image, truth, called))
    colours = np.repeat(grey[..., None], 3, axis=2)
    for mask, colour in zip(masks, (TRUTH, CALLED), strict=True):
        colours[_outline(mask)] = colour
    return colours


def _outline(mask: Mask) -> NDArray[np.bool_]:
    """Return the pixels of classes beside another class, the background or the border of the image."""
    classes = np.where(mask == UNKNOWN_PIXEL, 0, mask)
    cross = ndimage.generate_binary_structure(2, 1)
    lowest = ndimage.minimum_filter(classes, footprint=cross, mode="constant")
    highest = ndimage.maximum_filter(classes, footprint=cross, mode="constant")
    outline: NDArray[np.bool_] = (classes > 0) & (lowest != highest)
    return outline
