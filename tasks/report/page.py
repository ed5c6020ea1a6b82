"""Owns the report: what it is told, and the one self-contained HTML page that it becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from imaging.dataset.version.summary import Count
from imaging.statistics.classification import LOWER_IS_BETTER, TITLES, Predictions
from imaging.statistics.intervals import Measure
from imaging.statistics.verdict import Verdict
from tasks.report import figures

FEW_PATIENTS = 30
"""Below this many test patients the page warns that the intervals are rough."""

PLACES = 24
"""How many lines or pseudonyms of one trouble the page lists; an archive may have millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCount:
    """How many patients and examples of one label lie in one split."""

    split: str
    label: str
    patients: int
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How often something was left out, and what its code means."""

    reason: str
    count: int
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTrouble:
    """One kind of trouble with labels, how often it came, and where: pseudonyms, or lines of the label table."""

    what: str
    count: int
    keys: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Thumbnail:
    """A test image (height, width), its true label, what it was called, and the probability of that call."""

    image: NDArray[np.uint8]
    label: str
    predicted: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the call is the true label."""
        return self.label == self.predicted


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportData:
    """All that one page tells. Keys of patients must be pseudonyms; what is empty is left out of the page.

    A row of `history` has `epoch` and any of `train_loss`, `val_loss`, `val_<measure>`, `learning_rate`,
    `seconds`. The first epoch is 0, here and in `best_epoch`; the page counts from 1, as people do.
    `timings` are seconds by stage. `groups` are images and patients by modality, site and the like; a site is a
    pseudonym.
    """

    title: str
    created: str
    verdict: Verdict | None = None
    candidate: Predictions | None = None
    champion: Predictions | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    champion_measures: Mapping[str, Measure] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    best_epoch: int | None = None
    counts: Sequence[SplitCount] = ()
    groups: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)
    quarantine: Sequence[ReasonCount] = ()
    ignored: Sequence[ReasonCount] = ()
    label_troubles: Sequence[LabelTrouble] = ()
    thumbnails: Sequence[Thumbnail] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure of the page; the caption says how to read it."""

    title: str
    source: str
    caption: str


def render(data: ReportData) -> str:
    """Return the page as HTML that asks nothing of the network."""
    data, measures = _counted_from_one(data), _shown(data)
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {
        "cut": cut,
        "number": number,
        "column": figures.column_title,
        "thumbnail": figures.thumbnail,
    }
    return page.get_template("page.html.j2").render(
        data=data,
        splits=list(dict.fromkeys(row.split for row in data.counts)),
        counts=_by_label(data.counts),
        performance=_performance(data),
        training=_training(data),
        measures=measures,
        intervals=figures.interval_plot(measures, data.champion_measures) if measures else "",
        warnings=_warnings(data),
        titles=TITLES,
        listed=PLACES,
        lower_is_better=" and ".join(TITLES[name] for name in TITLES if name in LOWER_IS_BETTER),
    )


def cut(key: str) -> str:
    """Return the beginning of a pseudonym: never more than half of it.

    >>> cut("3f9a1c77e0b24d5a")
    '3f9a1c77…'
    """
    return key[: min(8, len(key) // 2)] + "…"


def number(value: float) -> str:
    """Return a number as a table shows it.

    >>> number(1234), number(0.123456), number(0.00001)
    ('1,234', '0.1235', '1e-05')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _shown(data: ReportData) -> dict[str, Measure]:
    """Return the measures without the accuracy that, for want of a threshold, would come twice."""
    twice = data.candidate is not None and data.candidate.threshold is None
    return {n: m for n, m in data.measures.items() if not (twice and n == "accuracy_argmax")}


def _counted_from_one(data: ReportData) -> ReportData:
    return replace(
        data,
        history=[{**row, "epoch": row["epoch"] + 1} for row in data.history],
        best_epoch=None if data.best_epoch is None else data.best_epoch + 1,
    )


def _by_label(counts: Sequence[SplitCount]) -> dict[str, dict[str, SplitCount]]:
    """Return the rows by label and then by split."""
    table: dict[str, dict[str, SplitCount]] = {}
    for row in counts:
        table.setdefault(row.label, {})[row.split] = row
    return table


def _performance(data: ReportData) -> list[Picture]:
    """Return the pictures of the predictions on the test part."""
    if data.candidate is None:
        return []
    pair = (data.candidate, data.champion)
    many = len(data.candidate.classes) > 2
    each = " Thin lines are single classes against the rest, the bold line is their mean." if many else ""
    called = "the most probable class" if data.candidate.threshold is None else "the threshold"
    subject = "the most probable class" if many else f"“{data.candidate.classes[1]}”"
    return [
        Picture(
            title="ROC curve",
            source=figures.roc(*pair),
            caption=f"Sensitivity for each rate of false alarms; the dotted line is chance.{each}",
        ),
        Picture(
            title="Precision-recall curve",
            source=figures.precision_recall(*pair),
            caption=f"How many of those called positive are; the dotted line is chance.{each}",
        ),
        Picture(
            title="Confusion matrix",
            source=figures.confusion_matrix(data.candidate),
            caption=f"Test images of the candidate, called by {called}; a row adds up to its true class.",
        ),
        Picture(
            title="Calibration",
            source=figures.calibration(*pair),
            caption=f"How often {subject} came true, in bins of equal counts; the dotted line is perfect. "
            "The error is the mean distance from it.",
        ),
    ]


def _training(data: ReportData) -> list[Picture]:
    """Return the training curves: the losses, then the validation measures."""
    columns = list(dict.fromkeys(key for row in data.history for key in row))
    groups = {
        "Loss": [key for key in columns if key.endswith("_loss")],
        "Validation": [key for key in columns if key.startswith("val_") and key != "val_loss"],
    }
    captions = {
        "Loss": "What training lowers, on training and validation patients.",
        "Validation": "What selects the epoch, on validation patients.",
    }
    return [
        Picture(
            title=title,
            source=figures.history_plot(data.history, keys, data.best_epoch),
            caption=captions[title],
        )
        for title, keys in groups.items()
        if keys
    ]


def _warnings(data: ReportData) -> list[str]:
    """Return what a reader must know before trusting the numbers."""
    said = []
    fewest = min((measure.patients for measure in data.measures.values()), default=FEW_PATIENTS)
    if fewest < FEW_PATIENTS:
        said.append(f"Only {fewest} test patients: the intervals are rough and likely too narrow.")
    undefined = {n: m.undefined_draws for n, m in data.measures.items() if m.undefined_draws}
    if undefined:
        names = ", ".join(f"{TITLES[name]} {count:,}" for name, count in undefined.items())
        said.append(f"Draws left out of the intervals because a class was missing in them: {names}.")
    return said
