"""Report of a night: its data, and the one self-contained HTML page that they become."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from imaging.dataset.version.summary import Count
from imaging.quantities import quantity
from imaging.statistics.intervals import Measure
from imaging.statistics.verdict import Verdict
from models.objectives.aggregation import NOUNS
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure of the page; the caption says how to read it."""

    title: str
    source: str
    caption: str


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class GalleryImage:
    """A test image (height, width), or (height, width, 3) in colours, with a headline and lines of text.

    The tone colours the headline.
    """

    image: NDArray[np.uint8]
    alt: str
    headline: str
    tone: Literal["right", "wrong"]
    lines: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Section:
    """A part of the page about predictions, see `Objective.report_sections`; `head` and `rows` are a table of texts."""

    title: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""
    pictures: Sequence[Picture] = ()
    gallery: Sequence[GalleryImage] = ()


def _no_view(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    raise ValueError(f"nothing shows {len(positions)} examples so: hand in the view to ExampleViews")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleViews:
    """Test examples by their positions (k,): images to look at (k, height, width), and the candidate's outputs.

    `stored` are the model's inputs whole (k, [slices,] height, width), `masks` what was drawn on them.
    """

    images: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    outputs: Callable[[NDArray[np.int64]], Mapping[str, NDArray[np.float32]]]
    stored: Callable[[NDArray[np.int64]], NDArray[np.uint8]] = _no_view
    masks: Callable[[NDArray[np.int64]], NDArray[np.uint8]] = _no_view
    unit: str = "image"
    """What is judged; of a unit of several images, one is looked at."""

    @property
    def units(self) -> str:
        """What is judged, in the plural."""
        return NOUNS[self.unit]

    def shown_image(self, of: str) -> str:
        """Return which image of a unit is shown, as a note; nothing where images are judged."""
        return f"Of each {self.unit} the image with the highest probability of {of} is shown." * (
            self.unit != "image"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportData:
    """All data of one page. Keys of patients must be pseudonyms; what is empty is left out of the page.

    A row of `history` has `epoch` and any of `train_loss`, `val_loss`, `val_<measure>`, `learning_rate`,
    `seconds`. The first epoch is 0, here and in `best_epoch`; the page counts from 1, as people do.
    `titles` are those of its measures, `lower_is_better` those of measures of which less is better.
    `units` is what was judged, in the plural, and `judged` a sentence about them where they are not images.
    `timings` are seconds by stage. `groups` are images and patients by modality, site and the like; a site is a
    pseudonym.
    """

    title: str
    created: str
    verdict: Verdict | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    champion_measures: Mapping[str, Measure] = field(default_factory=dict)
    lower_is_better: Sequence[str] = ()
    units: str = "images"
    judged: str = ""
    sections: Sequence[Section] = ()
    history: Sequence[Mapping[str, float]] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    best_epoch: int | None = None
    counts: Sequence[SplitCount] = ()
    groups: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)
    quarantine: Sequence[ReasonCount] = ()
    ignored: Sequence[ReasonCount] = ()
    label_troubles: Sequence[LabelTrouble] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


def render(data: ReportData) -> str:
    """Return the page as HTML that asks nothing of the network."""
    data = _counted_from_one(data)
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
        "quantity": quantity,
        "column": partial(figures.column_title, titles=data.titles),
        "thumbnail": figures.thumbnail,
    }
    return page.get_template("page.html.j2").render(
        data=data,
        splits=list(dict.fromkeys(row.split for row in data.counts)),
        counts=_by_label(data.counts),
        training=_training(data),
        intervals=figures.interval_plot(data.measures, data.champion_measures) if data.measures else "",
        warnings=_warnings(data),
        listed=PLACES,
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


def _training(data: ReportData) -> list[Picture]:
    """Return the training curves: the losses, then the validation measures."""
    columns = {key: figures.column_title(key, data.titles) for row in data.history for key in row}
    groups = {
        "Loss": {key: title for key, title in columns.items() if key.endswith("_loss")},
        "Validation": {k: title for k, title in columns.items() if k.startswith("val_") and k != "val_loss"},
    }
    captions = {
        "Loss": "What training lowers, on training and validation patients.",
        "Validation": "What selects the epoch, on validation patients.",
    }
    return [
        Picture(
            title=title,
            source=figures.history_plot(data.history, shown, data.best_epoch),
            caption=captions[title],
        )
        for title, shown in groups.items()
        if shown
    ]


def _warnings(data: ReportData) -> list[str]:
    """Return what a reader must know before trusting the numbers."""
    warnings = []
    fewest = min((measure.patients for measure in data.measures.values()), default=FEW_PATIENTS)
    if fewest < FEW_PATIENTS:
        warnings.append(
            f"Only {quantity(fewest, 'test patients')}: the intervals are rough and likely too narrow."
            if fewest > 1
            else "Only 1 test patient: there are no intervals."
        )
    undefined = [m for m in data.measures.values() if m.undefined_draws]
    if undefined:
        counts = ", ".join(f"{measure.title} {measure.undefined_draws:,}" for measure in undefined)
        warnings.append(f"Draws left out of the intervals because a class was missing in them: {counts}.")
    return warnings
