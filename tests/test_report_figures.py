"""Figures of every report: what is drawn, seen in the axes before they become a file, and in the files themselves."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from imaging.statistics.intervals import measure_all
from tasks.report import figures
from tests.report_figures import decoded, legend, predictions_of


def every_figure() -> Iterator[str]:
    measures = measure_all(predictions_of(2), draws=20)
    yield figures.interval_plot(measures, measures)
    yield figures.history_plot([{"epoch": 1, "val_loss": 0.5}], {"val_loss": "Loss"}, 1)


@pytest.mark.slow
def test_every_figure_is_an_svg_that_equal_data_repeat() -> None:
    first, second = list(every_figure()), list(every_figure())
    assert first == second
    assert all(uri.startswith("data:image/svg+xml;base64,") for uri in first)
    assert all(b"</svg>" in decoded(uri) for uri in first)


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were() -> None:
    before = dict(mpl.rcParams)
    figures.interval_plot(measure_all(predictions_of(2), draws=20), {})
    assert dict(mpl.rcParams) == before


def test_a_thumbnail_keeps_its_grey_levels() -> None:
    levels = np.array([[0, 100], [180, 255]], dtype=np.uint8)
    read = imread(BytesIO(decoded(figures.thumbnail(levels))), format="png")
    assert np.array_equal(np.rint(read[:, :, 0] * 255), levels)


def test_the_interval_plot_leaves_out_what_is_better_when_less(drawn: Callable[..., Axes]) -> None:
    axes = drawn(figures.interval_plot, measure_all(predictions_of(2), ["auroc", "brier"], draws=20), {})
    assert [label.get_text() for label in axes.get_yticklabels()] == ["AUROC"]


def test_the_interval_plot_reaches_from_limit_to_limit(drawn: Callable[..., Axes]) -> None:
    measures = measure_all(predictions_of(2), ["auroc"], draws=50)
    axes = drawn(figures.interval_plot, measures, {})
    assert list(axes.lines[0].get_xdata()) == [measures["auroc"].lower, measures["auroc"].upper]


def test_an_undefined_measure_has_no_mark(drawn: Callable[..., Axes]) -> None:
    one = replace(predictions_of(2), labels=np.zeros(60, dtype=int))
    assert not drawn(figures.interval_plot, measure_all(one, ["auroc"], draws=20), {}).lines


def test_the_kept_epoch_is_marked(drawn: Callable[..., Axes]) -> None:
    history = [{"epoch": e, "train_loss": 1 / e, "val_loss": 2 / e} for e in (1, 2, 3)]
    axes = drawn(
        figures.history_plot, history, {"train_loss": "Loss, training", "val_loss": "Loss, validation"}, 2
    )
    assert legend(axes) == ["Loss, training", "Loss, validation", "kept: epoch 2"]


def test_an_epoch_without_a_value_is_skipped(drawn: Callable[..., Axes]) -> None:
    history = [{"epoch": 1.0}, {"epoch": 2.0, "val_auroc": 0.7}]
    assert list(drawn(figures.history_plot, history, {"val_auroc": "AUROC"}).lines[0].get_xdata()) == [2]
