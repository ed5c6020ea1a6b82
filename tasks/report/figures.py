"""Figures of every report: each function draws one and returns it as a data URI."""

import base64
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import cycle
from math import isnan
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from imaging.statistics.intervals import Measure

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
    """Return grey levels (height, width), or colours (height, width, 3), as a PNG."""
    buffer = BytesIO()
    # As colours: a colour map would move some of the 256 levels by one.
    imsave(buffer, image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2), format="png")
    return _data_uri("image/png", buffer)


def interval_plot(measures: Mapping[str, Measure], champion: Mapping[str, Measure]) -> str:
    """Draw the measures of which more is better with their 95 % intervals."""
    names = [name for name, measure in measures.items() if measure.higher_is_better]
    shift = 0.16 if champion else 0

    def paint(axes: Axes) -> None:
        for row, name in enumerate(names):
            _paint_interval(axes, measures[name], row - shift, CANDIDATE, "o")
            if name in champion:
                _paint_interval(axes, champion[name], row + shift, CHAMPION, "s")
        axes.set_yticks(range(len(names)), [measures[name].title for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        # No measure here exceeds 1, and a narrow axis would make noise look like a difference.
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(min(axes.get_xlim()[0], 0.9), 1.005)

    return draw(paint, height=0.6 + 0.42 * len(names))


def history_plot(
    history: Sequence[Mapping[str, float]], columns: Mapping[str, str], best_epoch: int | None = None
) -> str:
    """Draw columns of the training history, with their titles, against the epoch; a line marks the kept one."""

    def paint(axes: Axes) -> None:
        looks = zip(cycle([CANDIDATE, CHAMPION, MUTED]), cycle(["-", "--", "-."]), strict=False)
        for (key, title), (color, dash) in zip(columns.items(), looks, strict=False):
            rows = [row for row in history if key in row]
            x, y = [row["epoch"] for row in rows], [row[key] for row in rows]
            axes.plot(x, y, color=color, ls=dash, marker=".", label=title)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=MUTED, lw=0.9, ls=":", label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    return draw(paint, height=3.1)


def column_title(key: str, titles: Mapping[str, str]) -> str:
    """Return what a reader sees for a column of the training history, given the titles of the measures.

    >>> column_title("val_auroc", {"auroc": "AUROC"}), column_title("train_loss", {}), column_title("seconds", {})
    ('AUROC, validation', 'Loss, training', 'Seconds')
    """
    part, _, name = key.rpartition("_")
    if part in PARTS:
        return f"{titles.get(name, name.capitalize())}, {PARTS[part]}"
    return titles.get(key, key.replace("_", " ").capitalize())


PARTS = {"train": "training", "val": "validation"}


def shortened(text: str, limit: int = 14) -> str:
    """Return text of at most `limit` characters.

    >>> shortened("pneumoperitoneum", 8)
    'pneumop…'
    """
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _paint_interval(axes: Axes, measure: Measure, row: float, color: str, marker: str) -> None:
    if isnan(measure.value):
        return
    axes.plot([measure.lower, measure.upper], [row, row], color=color, lw=2, solid_capstyle="round")
    axes.plot([measure.value], [row], marker, color=color, ms=6, mec="white", mew=0.8)


def _data_uri(kind: str, buffer: BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
