"""The page: what it says, what it must not say, and that it stands alone."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.dataset.version.summary import Count
from imaging.statistics.classification import ClassPredictions
from imaging.statistics.intervals import measure_all
from imaging.statistics.verdict import GateConfig, decide
from models.objectives.classification import Classification
from tasks.report.class_sections import class_curves
from tasks.report.page import (
    PLACES,
    ExampleViews,
    GalleryImage,
    LabelTrouble,
    Picture,
    ReasonCount,
    ReportData,
    Section,
    SplitCount,
    cut,
    render,
)
from tests.synthetic import verdict

EMPTY = ReportData(title="Lesion on CT", created="2025-06-14 02:03 UTC")
GATE = GateConfig(draws=200)


def model(skill: float, classes: int = 2, n: int = 120, seed: int = 1) -> ClassPredictions:
    labels = np.arange(n) % classes
    raw = np.exp(skill * np.eye(classes)[labels] + np.random.default_rng(seed).normal(size=(n, classes)))
    return ClassPredictions(
        labels=labels,
        probabilities=raw / raw.sum(axis=1, keepdims=True),
        patients=np.array([f"5e{i:06x}c0ffee" for i in range(n)]),
        classes=tuple(f"class {k}" for k in range(classes)),
        threshold=0.5 if classes == 2 else None,
    )


def no_view(positions: NDArray[np.int64]) -> NoReturn:
    raise AssertionError("curves need no example")


def report(classes: int = 2, skill: float = 2, champion_skill: float | None = 1.5) -> ReportData:
    candidate = model(skill, classes)
    champion = None if champion_skill is None else model(champion_skill, classes, seed=2)
    return replace(
        EMPTY,
        sections=[class_curves(candidate, champion, ExampleViews(images=no_view, outputs=no_view))],
        titles=Classification.epoch_titles,
        lower_is_better=["Brier score", "Log loss"],
        verdict=decide(candidate, champion, GATE),
        measures=measure_all(candidate, draws=50),
        champion_measures=measure_all(champion, draws=50) if champion else {},
        history=[
            {"epoch": 0, "train_loss": 0.6, "val_loss": 0.5, "val_auroc": 0.8, "lr": 1e-3, "seconds": 2.5}
        ],
        best_epoch=0,
    )


def without_figures(data: ReportData) -> ReportData:
    """Return the report without what takes long to draw."""
    return replace(data, sections=(), history=())


def text_of(page: str) -> str:
    """Return what a reader sees, with single spaces."""
    body = re.sub(r"<[^>]+>", " ", page.partition("<body>")[2])
    return " ".join(body.split())


class Links(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "data", [EMPTY, report(), report(classes=10)], ids=["empty", "binary", "ten classes"]
)
def test_the_page_asks_nothing_of_the_network(data: ReportData) -> None:
    page = render(data)
    links = Links()
    links.feed(page)
    assert all(source.startswith("data:image/") for source in links.loaded)
    assert "default-src 'none'; img-src data:" in page
    assert "@import" not in page
    assert "<script" not in page


def test_every_tag_is_closed(full_page: str) -> None:
    links = Links()
    links.feed(full_page)
    assert links.open == []


def test_an_empty_report_has_no_empty_sections() -> None:
    page = render(EMPTY)
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["No verdict"]
    assert "<table" not in page
    assert "<img" not in page


def full() -> ReportData:
    gallery = [
        GalleryImage(
            image=np.zeros((8, 8), dtype=np.uint8),
            alt=f"Test image, {label}",
            headline=headline,
            tone=tone,
            lines=(f"true: {label}", f"called: plain, {probability}"),
        )
        for headline, tone, label, probability in (
            ("Wrong", "wrong", "contrast", 0.62),
            ("Right", "right", "plain", 0.88),
        )
    ]
    made = report()
    return replace(
        made,
        sections=[*made.sections, Section(title="Examples", gallery=gallery)],
        counts=[
            SplitCount(split="train", label="plain", patients=20, examples=1234),
            SplitCount(split="test", label="contrast", patients=7, examples=9),
        ],
        groups={
            "modality": {"CT": Count(examples=1240, patients=26), "": Count(examples=3, patients=1)},
            "site": {f"{number:02x}" * 16: Count(examples=9, patients=2) for number in range(30)},
        },
        quarantine=[ReasonCount(reason="truncated", count=2, meaning="the file ends too early")],
        ignored=[ReasonCount(reason="not-dicom", count=3, meaning="not a DICOM file")],
        label_troubles=[
            LabelTrouble(what="images with no label", count=1, keys=("3f9a1c77e0b24d5a",)),
            LabelTrouble(what="labels that name no image", count=2, lines=("line 17", "line 40")),
        ],
        timings={"Training": 30.0, "Evaluation": 15.0},
        provenance={"commit": "1f7e0c9d41b2"},
    )


@pytest.fixture(scope="module")
def full_page() -> str:
    return render(full())


def test_images_are_counted_by_modality_and_site(full_page: str) -> None:
    rows = re.sub(r"<[^>]+>|\s+", " ", full_page)
    assert "Modality Images Patients" in " ".join(rows.split())
    assert re.search(r">CT</td>\s*<td class=\"n\">1,240</td><td class=\"n\">26</td>", full_page)
    assert re.search(r">\(none\)</td>\s*<td class=\"n\">3</td>", full_page)


def test_a_site_is_shown_by_the_beginning_of_its_pseudonym(full_page: str) -> None:
    assert ">171717171717</td>" in full_page
    assert "17" * 16 not in full_page
    # Of many sites those with the most images.
    assert "6 more" in full_page
    assert ">181818181818</td>" not in full_page


def test_a_full_report_has_its_sections_in_order(full_page: str) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", full_page) == [
        "Promoted",
        "Performance on the test part",
        "Examples",
        "Training",
        "Data",
        "Where the time went",
        "Provenance",
    ]


@pytest.mark.parametrize(
    ("skill", "champion", "decision", "tone"),
    [
        (3, 1, "Promoted", "promoted"),
        (1, 3, "Kept the champion", "kept"),
        (0.1, None, "Not promoted", "kept"),
    ],
)
def test_the_decision_stands_at_the_top(
    skill: float, champion: float | None, decision: str, tone: str
) -> None:
    data = without_figures(report(skill=skill, champion_skill=champion))
    page = render(data)
    assert f'class="verdict {tone}"' in page
    assert page.index(f"<h2>{decision}</h2>") < page.index("<table")
    assert data.verdict is not None
    assert data.verdict.reason[1:].replace("'", "&#39;") in page


def test_the_verdict_shows_each_number_with_its_interval() -> None:
    data = without_figures(report())
    assert data.verdict is not None
    seen = text_of(render(data))
    for number in (data.verdict.candidate, data.verdict.champion, data.verdict.difference_text):
        assert str(number) in seen
    assert "120 patients 120 images" in seen


def test_every_measure_of_both_models_is_listed_with_its_interval() -> None:
    data = without_figures(report())
    seen = text_of(render(data))
    assert all(str(m) in seen for m in [*data.measures.values(), *data.champion_measures.values()])


def test_an_undefined_measure_is_called_so() -> None:
    one_class = replace(model(2), labels=np.zeros(120, dtype=int))
    seen = text_of(render(replace(EMPTY, measures=measure_all(one_class, ["auroc"], draws=20))))
    assert "AUROC undefined" in seen
    assert "nan" not in seen


def test_few_patients_are_warned_of() -> None:
    few = replace(EMPTY, measures=measure_all(model(2, n=12), ["auroc"], draws=20))
    assert "Only 12 test patients" in render(few)
    assert "test patients: the intervals are rough" not in render(without_figures(report()))


def test_draws_without_a_class_are_counted() -> None:
    rare = replace(model(2, n=40), labels=np.array([1] + [0] * 39))
    measures = measure_all(rare, ["auroc"], draws=100)
    expected = f"AUROC {measures['auroc'].undefined_draws}"
    assert measures["auroc"].undefined_draws > 0
    assert expected in render(replace(EMPTY, measures=measures))


def test_no_patient_key_is_on_the_page(full_page: str) -> None:
    assert not any(key in full_page for key in model(2).patients)
    assert "3f9a1c77…" in full_page
    assert "3f9a1c77e0b24d5a" not in full_page


@pytest.mark.parametrize("key", ["a", "ab", "abcdef", "0123456789abcdef" * 4])
def test_never_more_than_half_of_a_key_is_shown(key: str) -> None:
    assert len(cut(key).rstrip("…")) <= len(key) / 2


def test_names_are_escaped() -> None:
    page = render(replace(EMPTY, title="<script>alert(1)</script>", provenance={"seed": "<b>0</b>"}))
    assert "<script>" not in page
    assert "&lt;b&gt;0&lt;/b&gt;" in page


def test_counts_are_shown_by_label_and_split(full_page: str) -> None:
    seen = text_of(full_page)
    assert "Train Test plain 1,234 (20) 0 contrast 0 9 (7)" in seen


def test_what_was_left_out_is_shown_with_its_reason(full_page: str) -> None:
    seen = text_of(full_page)
    assert "truncated 2 the file ends too early" in seen
    assert "not-dicom 3 not a DICOM file" in seen
    assert "images with no label 1" in seen


def test_labels_without_an_image_are_shown_by_their_lines(full_page: str) -> None:
    assert "labels that name no image 2 line 17, line 40" in text_of(full_page)


def test_of_many_places_the_first_are_listed_and_the_rest_counted() -> None:
    trouble = LabelTrouble(what="labels", count=5000, lines=tuple(f"line {n}" for n in range(5000)))
    seen = text_of(render(replace(EMPTY, label_troubles=[trouble])))
    assert seen.endswith(f"line {PLACES - 1} and {5000 - PLACES:,} more")


def test_epochs_are_counted_from_one() -> None:
    assert "Seconds 1 0.6 0.5" in text_of(render(replace(EMPTY, history=report().history)))


def test_the_kept_epoch_is_counted_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []

    def note(*arguments: object) -> str:
        drawn.append(arguments[2])
        return ""

    monkeypatch.setattr("tasks.report.figures.history_plot", note)
    render(replace(EMPTY, history=report().history, best_epoch=0))
    assert drawn == [1, 1]


def test_examples_are_shown_in_their_order(full_page: str) -> None:
    seen = text_of(full_page)
    assert "Wrong true: contrast called: plain, 0.62 Right true: plain called: plain, 0.88" in seen


def test_a_section_of_pictures_has_its_title_where_it_has_one() -> None:
    picture = Picture(title="Overlay", source="data:image/png;base64,", caption="Truth and prediction.")
    page = render(replace(EMPTY, sections=[Section(title="Worst <cases>", pictures=[picture])]))
    assert "Worst <cases> Overlay Truth and prediction." in text_of(page).replace("&lt;", "<").replace(
        "&gt;", ">"
    )


def test_the_training_has_a_curve_of_losses_and_one_of_measures() -> None:
    page = render(replace(EMPTY, history=report().history, titles={"auroc": "AUROC"}))
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["Loss", "Validation"]
    assert "AUROC, validation" in text_of(page)


def test_a_history_without_validation_has_no_validation_curve() -> None:
    page = render(replace(EMPTY, history=[{"epoch": 1, "train_loss": 0.5}]))
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["Loss"]


def test_timings_are_bars_in_proportion(full_page: str) -> None:
    page = full_page
    assert "30.0 s" in page
    assert 'style="width: 50.0%"' in page


def test_stages_that_took_no_time_are_no_error() -> None:
    assert "0.0 s" in render(replace(EMPTY, timings={"Imports": 0.0}))


def test_the_same_data_give_the_same_page(full_page: str) -> None:
    assert full_page == render(full())


def test_a_useless_model_is_no_green_card_and_warned_of_above_it() -> None:
    useless = replace(verdict(promote=False), useless="it calls no image right that is 'a'.")
    page = render(replace(EMPTY, verdict=useless))
    assert 'class="verdict useless"' in page
    assert page.index("this model is of no use") < page.index('class="verdict useless"')
    assert "of no use" not in render(replace(EMPTY, verdict=verdict(promote=True)))


def test_one_patient_is_singular_and_without_interval() -> None:
    one = replace(model(3, n=2), patients=np.array(["a", "a"]), labels=np.array([0, 1]))
    made = decide(one, None, GateConfig(min_patients=1, draws=200))
    seen = text_of(render(replace(EMPTY, verdict=made, measures=measure_all(one, ["auroc"], draws=200))))
    assert "(n/a)" in seen
    assert "1 patient" in seen
    assert "1 patients" not in seen
    assert "nan" not in seen
