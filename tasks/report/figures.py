"""Owns the report's pictures: each function draws one and returns it as a data URI."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import cycle
from math import isnan
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from imaging.statistics.calibration import expected_calibration_error, reliability_of
from imaging.statistics.classification import (
    LOWER_IS_BETTER,
    TITLES,
    Predictions,
    confusion,
)
from imaging.statistics.curves import Curve, curves_of, mean_curve, precision_recall_curve, roc_curve
from imaging.statistics.intervals import Measure, value_of

INK, MUTED, PALE, FAINT = "#1d2b36", "#5f6f7a", "#a9b4bc", "#d5dce1"
CANDIDATE, CHAMPION = "#0b6078", "#b5651d"

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    # Equal data give equal bytes.
    "svg.hashsalt": "radloop",
}


def draw(paint: Callable[[Axes], None], width: float = 4.6, height: float = 3.9) -> str:
    """Paint on fresh axes of that size in inches; return an SVG as a data URI."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer)


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Return grey levels (height, width) as a PNG."""
    buffer = BytesIO()
    # As colours: a colour map would move some of the 256 levels by one.
    imsave(buffer, np.repeat(image[:, :, None], 3, axis=2), format="png")
    return _data_uri("image/png", buffer)


def roc(candidate: Predictions, champion: Predictions | None = None) -> str:
    """Draw the receiver operating characteristic; with many classes each one thin and their mean bold."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":")
        _paint_curves(axes, roc_curve, candidate, champion)
        if candidate.threshold is not None:
            _paint_threshold(axes, candidate, 1 - value_of(candidate, "specificity"), "recall")
        axes.set(xlabel="1 - specificity", ylabel="Sensitivity")
        _unit_square(axes, "lower right")

    return draw(paint)


def precision_recall(candidate: Predictions, champion: Predictions | None = None) -> str:
    """Draw precision against recall; the dotted line is what chance reaches."""

    def paint(axes: Axes) -> None:
        shares = [float(np.mean(candidate.labels == k)) for k in candidate.one_versus_rest]
        axes.axhline(float(np.mean(shares)), color=MUTED, lw=0.8, ls=":")
        _paint_curves(axes, precision_recall_curve, candidate, champion)
        if candidate.threshold is not None:
            _paint_threshold(axes, candidate, value_of(candidate, "recall"), "precision")
        axes.set(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
        _unit_square(axes, "lower left")

    return draw(paint)


def confusion_matrix(predictions: Predictions) -> str:
    """Draw the counts of true and called classes; the shade is the share of the true class."""
    counts = confusion(predictions, np.ones((1, len(predictions.labels))))[0]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shortened(name) for name in predictions.classes]
    few = len(names) < 5

    def paint(axes: Axes) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)
        for (row, column), share in np.ndenumerate(shares):
            text = f"{counts[row, column]:.0f}" + (f"\n{share:.0%}" if few else "")
            color = "white" if share > 0.6 else INK if counts[row, column] else PALE
            axes.text(column, row, text, ha="center", va="center", color=color, size=11 if few else 8)
        turned = 40 if not few and max(map(len, names)) > 3 else 0
        axes.set_xticks(range(len(names)), names, rotation=turned, ha="right" if turned else "center")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="Called", ylabel="True")

    return draw(paint)


def calibration(candidate: Predictions, champion: Predictions | None = None) -> str:
    """Draw how often probabilities of one height came true, in bins of equal counts."""
    subject = candidate.classes[1] if len(candidate.classes) == 2 else "the most probable class"

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":")
        for predictions, name, look in _models(candidate, champion):
            bins = reliability_of(predictions)
            label = f"{name}, error {expected_calibration_error(bins):.3f}"
            x, y = [b.predicted for b in bins], [b.observed for b in bins]
            axes.plot(x, y, label=label, marker="o", ms=4, **look)
        axes.set(xlabel=f"Probability of {shortened(subject, 26)}", ylabel="Observed frequency")
        _unit_square(axes, "best")

    return draw(paint)


def interval_plot(measures: Mapping[str, Measure], champion: Mapping[str, Measure]) -> str:
    """Draw the measures of which more is better with their 95 % intervals."""
    names = [name for name in measures if name not in LOWER_IS_BETTER]
    shift = 0.16 if champion else 0

    def paint(axes: Axes) -> None:
        for row, name in enumerate(names):
            _paint_interval(axes, measures[name], row - shift, CANDIDATE, "o")
            if name in champion:
                _paint_interval(axes, champion[name], row + shift, CHAMPION, "s")
        axes.set_yticks(range(len(names)), [TITLES[name] for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        # No measure here exceeds 1, and a narrow axis would make noise look like a difference.
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(min(axes.get_xlim()[0], 0.9), 1.005)

    return draw(paint, height=0.6 + 0.42 * len(names))


def history_plot(
    history: Sequence[Mapping[str, float]], keys: Sequence[str], best_epoch: int | None = None
) -> str:
    """Draw columns of the training history against the epoch; a line marks the epoch that was kept."""

    def paint(axes: Axes) -> None:
        looks = zip(cycle([CANDIDATE, CHAMPION, MUTED]), cycle(["-", "--", "-."]), strict=False)
        for key, (color, dash) in zip(keys, looks, strict=False):
            rows = [row for row in history if key in row]
            x, y = [row["epoch"] for row in rows], [row[key] for row in rows]
            axes.plot(x, y, color=color, ls=dash, marker=".", label=column_title(key))
        if best_epoch is not None:
            axes.axvline(best_epoch, color=MUTED, lw=0.9, ls=":", label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    return draw(paint, height=3.1)


def column_title(key: str) -> str:
    """Return what a reader sees for a column of the training history.

    >>> column_title("val_auroc"), column_title("train_loss"), column_title("seconds")
    ('AUROC, validation', 'Loss, training', 'Seconds')
    """
    part, _, name = key.rpartition("_")
    title = TITLES.get(name, name.capitalize())
    return f"{title}, {PARTS[part]}" if part in PARTS else TITLES.get(key, key.replace("_", " ").capitalize())


PARTS = {"train": "training", "val": "validation"}


def shortened(text: str, limit: int = 14) -> str:
    """Return text of at most `limit` characters.

    >>> shortened("pneumoperitoneum", 8)
    'pneumop…'
    """
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _models(
    candidate: Predictions, champion: Predictions | None
) -> Iterator[tuple[Predictions, str, dict[str, Any]]]:
    """Yield each model with its name and look; the candidate comes last and lies on top."""
    if champion is not None:
        yield champion, "Champion", {"color": CHAMPION, "lw": 1.4, "ls": "--"}
    yield candidate, "Candidate", {"color": CANDIDATE, "lw": 1.8}


def _paint_curves(axes: Axes, curve: Curve, candidate: Predictions, champion: Predictions | None) -> None:
    for predictions, name, look in _models(candidate, champion):
        curves = curves_of(predictions, curve)
        if len(predictions.classes) == 2 and curves:
            axes.plot(*curves[0], label=name, **look)
        elif curves:
            axes.plot(*mean_curve(curves), label=f"{name}, mean of classes", **look)
            for x, y in curves if predictions is candidate else []:
                axes.plot(x, y, color=CANDIDATE, lw=0.6, alpha=0.35)


def _paint_threshold(axes: Axes, predictions: Predictions, x: float, height: str) -> None:
    label = f"at threshold {predictions.threshold:.3f}"
    y = value_of(predictions, height)
    axes.plot([x], [y], "o", color=CANDIDATE, mfc="white", ms=6.5, mew=1.6, label=label, zorder=5)


def _paint_interval(axes: Axes, measure: Measure, row: float, color: str, marker: str) -> None:
    if isnan(measure.value):
        return
    axes.plot([measure.lower, measure.upper], [row, row], color=color, lw=2, solid_capstyle="round")
    axes.plot([measure.value], [row], marker, color=color, ms=6, mec="white", mew=0.8)


def _unit_square(axes: Axes, legend: Literal["lower left", "lower right", "best"]) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc=legend)


def _data_uri(kind: str, buffer: BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
