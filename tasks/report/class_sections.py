"""Report sections of a classifier: its curves, and the test images that it was surest about."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from imaging.statistics.calibration import expected_calibration_error, reliability_of
from imaging.statistics.classification import (
    ClassPredictions,
    Curve,
    confusion,
    curves_of,
    mean_curve,
    precision_recall_curve,
    roc_curve,
)
from imaging.statistics.intervals import value_of
from tasks.report import figures
from tasks.report.page import ExampleViews, GalleryImage, Picture, Section

EXAMPLES = 6
"""Of right calls and of wrong ones, so many are shown."""


def class_curves(
    candidate: ClassPredictions, champion: ClassPredictions | None, views: ExampleViews
) -> Section:
    """Return the ROC and precision-recall curves, the confusion matrix and the calibration."""
    many = len(candidate.classes) > 2
    each = " Thin lines are single classes against the rest, the bold line is their mean." if many else ""
    called = "the most probable class" if candidate.threshold is None else "the threshold"
    subject = "the most probable class" if many else f"“{candidate.classes[1]}”"
    return Section(
        pictures=[
            Picture(
                title="ROC curve",
                source=roc(candidate, champion),
                caption=f"Sensitivity for each rate of false alarms; the dotted line is chance.{each}",
            ),
            Picture(
                title="Precision-recall curve",
                source=precision_recall(candidate, champion),
                caption=f"How many of those called positive are; the dotted line is chance.{each}",
            ),
            Picture(
                title="Confusion matrix",
                source=confusion_matrix(candidate),
                caption=f"Test {views.units} of the candidate, called by {called}; a row adds up to its true class.",
            ),
            Picture(
                title="Calibration",
                source=calibration(candidate, champion),
                caption=f"How often {subject} came true, in bins of equal counts; the dotted line is perfect. "
                "The error is the mean distance from it.",
            ),
        ]
    )


def surest_calls(
    candidate: ClassPredictions, champion: ClassPredictions | None, views: ExampleViews
) -> Section:
    """Return the test images of the surest calls of the candidate, wrong ones first; of a unit one that tells most."""
    right, wrong = surest(candidate, EXAMPLES)
    chosen = np.concatenate([wrong, right])
    return Section(
        title="Examples",
        note=views.shown_image(
            f"“{candidate.classes[1]}”" if len(candidate.classes) == 2 else "its most probable class"
        ),
        gallery=[
            GalleryImage(
                image=image,
                alt=f"Test {views.unit}, {candidate.classes[candidate.labels[position]]}",
                headline="Wrong" if number < len(wrong) else "Right",
                tone="wrong" if number < len(wrong) else "right",
                lines=(
                    f"true: {candidate.classes[candidate.labels[position]]}",
                    f"called: {candidate.classes[candidate.predicted[position]]}, "
                    f"{candidate.probabilities[position, candidate.predicted[position]]:.2f}",
                ),
            )
            for number, (image, position) in enumerate(zip(views.images(chosen), chosen, strict=True))
        ],
    )


def surest(predictions: ClassPredictions, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions of the calls with the highest probability, right ones and wrong ones apart, highest first."""
    called = predictions.predicted
    sureness = predictions.probabilities[np.arange(len(called)), called]
    order = np.argsort(-sureness, kind="stable")
    right = called[order] == predictions.labels[order]
    return order[right][:count], order[~right][:count]


def roc(candidate: ClassPredictions, champion: ClassPredictions | None = None) -> str:
    """Draw the receiver operating characteristic; with many classes each one thin and their mean bold."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=figures.MUTED, lw=0.8, ls=":")
        _paint_curves(axes, roc_curve, candidate, champion)
        if candidate.threshold is not None:
            _paint_threshold(axes, candidate, 1 - value_of(candidate, "specificity"), "recall")
        axes.set(xlabel="1 - specificity", ylabel="Sensitivity")
        _unit_square(axes, "lower right")

    return figures.draw(paint)


def precision_recall(candidate: ClassPredictions, champion: ClassPredictions | None = None) -> str:
    """Draw precision against recall; the dotted line is what chance reaches."""

    def paint(axes: Axes) -> None:
        shares = [float(np.mean(candidate.labels == k)) for k in candidate.one_versus_rest]
        axes.axhline(float(np.mean(shares)), color=figures.MUTED, lw=0.8, ls=":")
        _paint_curves(axes, precision_recall_curve, candidate, champion)
        if candidate.threshold is not None:
            _paint_threshold(axes, candidate, value_of(candidate, "recall"), "precision")
        axes.set(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
        _unit_square(axes, "lower left")

    return figures.draw(paint)


def confusion_matrix(predictions: ClassPredictions) -> str:
    """Draw the counts of true and called classes; the shade is the share of the true class."""
    counts = confusion(predictions, np.ones((1, len(predictions.labels))))[0]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [figures.shortened(name) for name in predictions.classes]
    few = len(names) < 5

    def paint(axes: Axes) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)
        for (row, column), share in np.ndenumerate(shares):
            text = f"{counts[row, column]:.0f}" + (f"\n{share:.0%}" if few else "")
            color = "white" if share > 0.6 else figures.INK if counts[row, column] else figures.PALE
            axes.text(column, row, text, ha="center", va="center", color=color, size=11 if few else 8)
        turned = 40 if not few and max(map(len, names)) > 3 else 0
        axes.set_xticks(range(len(names)), names, rotation=turned, ha="right" if turned else "center")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="Called", ylabel="True")

    return figures.draw(paint)


def calibration(candidate: ClassPredictions, champion: ClassPredictions | None = None) -> str:
    """Draw how often probabilities of one height came true, in bins of equal counts."""
    subject = candidate.classes[1] if len(candidate.classes) == 2 else "the most probable class"

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=figures.MUTED, lw=0.8, ls=":")
        for predictions, name, look in _models(candidate, champion):
            bins = reliability_of(predictions)
            label = f"{name}, error {expected_calibration_error(bins):.3f}"
            x, y = [b.predicted for b in bins], [b.observed for b in bins]
            axes.plot(x, y, label=label, marker="o", ms=4, **look)
        axes.set(xlabel=f"Probability of {figures.shortened(subject, 26)}", ylabel="Observed frequency")
        _unit_square(axes, "best")

    return figures.draw(paint)


def _models(
    candidate: ClassPredictions, champion: ClassPredictions | None
) -> Iterator[tuple[ClassPredictions, str, dict[str, Any]]]:
    """Yield each model with its name and look; the candidate comes last and lies on top."""
    if champion is not None:
        yield champion, "Champion", {"color": figures.CHAMPION, "lw": 1.4, "ls": "--"}
    yield candidate, "Candidate", {"color": figures.CANDIDATE, "lw": 1.8}


def _paint_curves(
    axes: Axes, curve: Curve, candidate: ClassPredictions, champion: ClassPredictions | None
) -> None:
    for predictions, name, look in _models(candidate, champion):
        curves = curves_of(predictions, curve)
        if len(predictions.classes) == 2 and curves:
            axes.plot(*curves[0], label=name, **look)
        elif curves:
            axes.plot(*mean_curve(curves), label=f"{name}, mean of classes", **look)
            for x, y in curves if predictions is candidate else []:
                axes.plot(x, y, color=figures.CANDIDATE, lw=0.6, alpha=0.35)


def _paint_threshold(axes: Axes, predictions: ClassPredictions, x: float, height: str) -> None:
    label = f"at threshold {predictions.threshold:.3f}"
    y = value_of(predictions, height)
    axes.plot([x], [y], "o", color=figures.CANDIDATE, mfc="white", ms=6.5, mew=1.6, label=label, zorder=5)


def _unit_square(axes: Axes, legend: Literal["lower left", "lower right", "best"]) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc=legend)
