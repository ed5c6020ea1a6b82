"""Report sections of findings: measures and curves of each, and the test images that the model was surest about."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from imaging.statistics.classification import Flags, Points, precision_recall_curve, roc_curve
from imaging.statistics.intervals import measure_all
from imaging.statistics.multilabel import FindingPredictions
from tasks.report import figures
from tasks.report.page import ExampleViews, GalleryImage, Picture, Section

EXAMPLES = 6
"""Of right calls and of wrong ones, so many are shown."""
DRAWS = 1000
"""Of the bootstrap of each measure here: with fourteen findings there are dozens."""
NAMED_CURVES = 8
"""Findings that have a line in the legend; of more, the lines are thin and unnamed."""
SHOWN = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "precision": "PPV",
}


def finding_measures(
    candidate: FindingPredictions, champion: FindingPredictions | None, views: ExampleViews
) -> Section:
    """Return the table of the measures of each finding, with the patients that they rest on."""
    names = [f"{measure}[{finding}]" for finding in candidate.findings for measure in SHOWN]
    measures = measure_all(candidate, names, draws=DRAWS)
    of_champion = (
        measure_all(champion, [f"auroc[{finding}]" for finding in champion.findings], draws=DRAWS)
        if champion
        else {}
    )
    rows = []
    for number, finding in enumerate(candidate.findings):
        counts = candidate.count_patients(number)
        cells = [str(measures[f"{measure}[{finding}]"]) for measure in SHOWN]
        before = [str(of_champion.get(f"auroc[{finding}]", ""))] if champion else []
        patients = f"{counts['present']} / {counts['absent']}"
        rows.append((finding, patients, *cells, *before, f"{candidate.thresholds[number]:.3f}"))
    head = ("Finding", "Patients with / without", *SHOWN.values())
    return Section(
        title="Findings",
        head=(*head, *(["AUROC of the champion"] if champion else []), "Threshold"),
        rows=rows,
        note=f"Each finding is measured on the test {views.units} of which it is known; what is unknown is left out. "
        f"{views.units.capitalize()} are called at the threshold, which was chosen on validation patients.",
    )


def finding_curves(
    candidate: FindingPredictions, champion: FindingPredictions | None, views: ExampleViews
) -> Section:
    """Return the ROC and precision-recall curves of each finding."""
    return Section(
        pictures=[
            Picture(
                title="ROC curves",
                source=curves(candidate, roc_curve, ("1 - specificity", "Sensitivity")),
                caption="Sensitivity for each rate of false alarms, by finding; the dotted line is chance.",
            ),
            Picture(
                title="Precision-recall curves",
                source=curves(candidate, precision_recall_curve, ("Recall (sensitivity)", "Precision (PPV)")),
                caption="How many of those called to have a finding have it, a line for each finding.",
            ),
        ]
    )


def finding_calls(
    candidate: FindingPredictions, champion: FindingPredictions | None, views: ExampleViews
) -> Section:
    """Return the test images and findings of the surest calls of the candidate, wrong ones first."""
    right, wrong = surest(candidate, EXAMPLES)
    chosen = np.concatenate([wrong, right])
    return Section(
        title="Examples",
        note=views.shown_image("its most probable finding"),
        gallery=[
            GalleryImage(
                image=image,
                alt=f"Test {views.unit}, {candidate.findings[finding]}",
                headline="Wrong" if number < len(wrong) else "Right",
                tone="wrong" if number < len(wrong) else "right",
                lines=(
                    f"{candidate.findings[finding]}: {'present' if candidate.truth[at, finding] else 'absent'}",
                    f"probability {candidate.probabilities[at, finding]:.2f}, threshold "
                    f"{candidate.thresholds[finding]:.2f}",
                ),
            )
            for number, (image, (at, finding)) in enumerate(
                zip(views.images(chosen[:, 0]), chosen.tolist(), strict=True)
            )
        ],
    )


def surest(predictions: FindingPredictions, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (k, 2) positions of images and findings whose calls are farthest from the threshold, right and wrong."""
    thresholds, known = np.array(predictions.thresholds), predictions.truth >= 0
    apart = predictions.probabilities.astype(np.float64) - thresholds
    # By the side: the threshold of a rare finding may be so low that none is sure to be absent otherwise.
    sureness = np.where(
        apart >= 0, apart / np.maximum(1 - thresholds, 1e-9), -apart / np.maximum(thresholds, 1e-9)
    )
    right = (apart >= 0) == (predictions.truth == 1)
    order = np.argsort(-sureness, axis=None, kind="stable")
    at, finding = np.unravel_index(order, sureness.shape)
    places = np.stack([at, finding], axis=1)
    of_order = right[at, finding], known[at, finding]
    return places[of_order[0] & of_order[1]][:count], places[~of_order[0] & of_order[1]][:count]


def curves(
    predictions: FindingPredictions,
    curve: Callable[[Flags, NDArray[np.floating]], Points],
    axis_titles: tuple[str, str],
) -> str:
    """Draw a curve for each finding that is present in some test images and absent in others."""
    named = len(predictions.findings) <= NAMED_CURVES

    def paint(axes: Axes) -> None:
        if curve is roc_curve:
            axes.plot([0, 1], [0, 1], color=figures.MUTED, lw=0.8, ls=":")
        for number, name in enumerate(predictions.findings):
            one = predictions.one(number)
            if one.present.all() or not one.present.any():
                continue
            look: dict[str, Any] = (
                {"color": f"C{number}", "lw": 1.4} if named else {"color": figures.CANDIDATE, "lw": 0.6}
            )
            axes.plot(*curve(one.present, one.probabilities), label=figures.shortened(name), **look)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel=axis_titles[0], ylabel=axis_titles[1])
        if named and axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right" if curve is roc_curve else "lower left")

    return figures.draw(paint)
