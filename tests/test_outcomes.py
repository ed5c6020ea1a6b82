"""Outcomes as Markdown: every number that matters, and none twice."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.dicom.findings import FINDINGS
from imaging.refusal_reasons import IGNORED, REASONS
from imaging.statistics.classification import ClassPredictions
from services.mlflow.registry import Registered
from tasks.evaluation import Evaluation
from tasks.promotion import Promotion
from tasks.reevaluation import Reevaluation
from tasks.report.outcome_values import plain
from tasks.report.outcomes import (
    evaluation_markdown,
    ingest_markdown,
    measures_markdown,
    nightly_markdown,
    reevaluation_markdown,
    remeasured_markdown,
    table,
    training_markdown,
    version_markdown,
)
from tasks.reporting import NightlyReport
from tasks.training import TrainOutcome
from tests.synthetic import measured, verdict

MODEL = Registered(name="chest", version=7, run_id="r", tags={"network": "small_cnn"})
INGESTED = IngestOutcome(
    dataset="chest",
    digest="0123456789abcdef",
    changed=True,
    files_listed=100,
    files_read=12,
    files_removed=3,
    examples=94,
    patients=54,
    counts={"train": {"plain": {"examples": 40, "patients": 20}}},
    quarantined={"truncated": 2},
    ignored={"dicomdir": 1},
    labels_without_image=4,
    images_without_label=5,
    images_in_conflict=6,
    problems_file="/home/private/problems.csv",
    findings={"dark-picture": 7},
    labels_of_others=7,
    labels_missing={"NA": 8, "-": 2, "": 3},
    labels_uneven=(9, 17),
    classes=("benign", "tumour"),
)
TRAINED = TrainOutcome(
    candidate=MODEL,
    trained_now=True,
    best_epoch=0,
    history=({"epoch": 0, "train_loss": 0.7, "val_loss": 0.6, "val_auroc": 0.8125},),
    timings_s={"Ray start": 4.5},
)
EVALUATED = Evaluation(
    candidate=MODEL,
    champion=None,
    predictions=ClassPredictions(
        labels=np.array([0, 1]), probabilities=np.eye(2), patients=np.array(["a", "b"]), classes=("a", "b")
    ),
    champion_predictions=None,
    measures={"auroc": measured(0.9)},
    champion_measures={},
    verdict=verdict(promote=True),
    test_keys=np.array(["i", "j"]),
)
NIGHT = NightlyReport(
    ingested=INGESTED,
    trained=TRAINED,
    evaluation=EVALUATED,
    promotion=Promotion(promoted=True, champion=7, before=None),
    timings_s={"ingest": 1.25, "train": 30.0},
    report="/home/store/reports/night.html",
)


@pytest.mark.parametrize(
    "fragment",
    [
        "100 files listed, 12 read, 3 gone",
        "94 images of 54 patients",
        "`0123456789ab` (new version)",
        "| train | plain | 40 | 20 |",
        f"| truncated | 2 | {REASONS['truncated']} |",
        f"| dicomdir | 1 | ignored: {IGNORED['dicomdir']} |",
        "| labels that name no image | 4 |",
        "| images with no label | 5 |",
        f"| dark-picture | 7 | {FINDINGS['dark-picture']} |",
        "| images with two different labels | 6 |",
        "| labels of an image that is of another patient, study or series than they say | 7 |",
        "| lines of the label table with more or fewer columns than its first line (the first is line 17) | 9 |",
        "**Missing labels**: 3 empty, 2 x `-`, 8 x `NA`; `--missing` changes",
        "**Looked for**: `tumour`, against `benign`; `--positive` changes it",
        "/home/private/problems.csv",
    ],
)
def test_the_page_of_an_ingest_shows(fragment: str) -> None:
    assert fragment in ingest_markdown(INGESTED)


def test_an_ingest_without_news_is_shown_as_unchanged() -> None:
    assert "unchanged, nothing written" in ingest_markdown(replace(INGESTED, changed=False))


def test_where_names_do_not_decide_which_class_is_looked_for_the_remedy_is_shown() -> None:
    markdown = ingest_markdown(replace(INGESTED, classes=("cat", "dog"), decided_by="order"))
    assert "**Looked for**: `dog`, against `cat`: the names do not say which is the healthy one" in markdown
    assert '`--positive "cat"`' in markdown


def test_where_a_person_has_decided_there_is_no_remedy() -> None:
    assert "--positive" not in ingest_markdown(replace(INGESTED, decided_by="person"))


def test_of_three_classes_none_is_looked_for() -> None:
    assert "Looked for" not in ingest_markdown(replace(INGESTED, classes=("a", "b", "c")))


def test_of_three_classes_a_choice_changes_nothing() -> None:
    outcome = replace(INGESTED, classes=("a", "b", "c"), decided_by="person")
    assert "none of the 3 classes; `--positive` is for two classes alone" in ingest_markdown(outcome)


def test_an_ingest_of_volumes_lists_series() -> None:
    markdown = ingest_markdown(replace(INGESTED, kind="volume"))
    for text in (
        "100 series or single files listed, 12 read",
        "94 volumes of 54 patients",
        "| not taken in | series or single files | why |",
        "| taken in, but | volumes |",
        "| volumes with no label | 5 |",
    ):
        assert text in markdown
    assert "images" not in markdown.replace("labels of an image", "")


def test_an_ingest_without_trouble_shows_none() -> None:
    fine = replace(
        INGESTED,
        quarantined={},
        ignored={},
        labels_without_image=0,
        images_without_label=0,
        images_in_conflict=0,
        labels_of_others=0,
        labels_uneven=(0, 0),
        problems_file=None,
        findings={},
    )
    markdown = ingest_markdown(fine)
    assert not any(
        word in markdown for word in ("not taken in", "taken in, but", "labels |", "Original names")
    )


@pytest.mark.parametrize(
    "fragment", ["version 7 of `chest`", "small_cnn", "trained for 1 epoch\n", "| 1 | 0.700"]
)
def test_the_page_of_a_training_shows(fragment: str) -> None:
    assert fragment in training_markdown(TRAINED)


def test_a_training_of_an_earlier_night_has_no_epochs_to_show() -> None:
    markdown = training_markdown(replace(TRAINED, trained_now=False, history=()))
    assert "trained earlier on the same data" in markdown
    assert "|" not in markdown


def test_a_measure_is_shown_with_its_interval_and_its_patients() -> None:
    markdown = measures_markdown({"auroc": measured(0.9)}, {})
    assert "40 images of 20 patients" in markdown
    assert "| AUROC | 0.900 (0.850-0.950) |  |" in markdown


def test_the_champion_stands_beside_the_candidate() -> None:
    markdown = measures_markdown({"auroc": measured(0.9)}, {"auroc": measured(0.8)})
    assert "| AUROC | 0.900 (0.850-0.950) | 0.800 (0.750-0.850) |" in markdown


def test_an_evaluation_ends_with_its_verdict() -> None:
    assert evaluation_markdown(EVALUATED).endswith("**Promoted: it was told so.**")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(0.9, "still reaches the floor of 0.700"), (0.6, "has fallen below the floor of 0.700")],
)
def test_a_reevaluation_shows_whether_the_champion_reaches_the_floor(value: float, sentence: str) -> None:
    outcome = Reevaluation(
        champion=MODEL,
        dataset_digest="d",
        measures={"auroc": measured(value)},
        measure="auroc",
        floor=0.7,
    )
    assert sentence in reevaluation_markdown(outcome)
    assert outcome.reaches_floor == (value == 0.9)


def test_a_version_is_described_by_verdict_report_and_measures() -> None:
    model = replace(MODEL, tags={"network": "small_cnn", "dataset.digest": "0123456789abcdef"})
    other = replace(MODEL, version=3)
    measures = {"auroc": measured(0.8)}
    compared = replace(EVALUATED, candidate=model, champion=other, champion_measures=measures)
    head, report, made, *_ = version_markdown(compared, "#/night.html").split("\n\n")
    assert head == "Promoted: it was told so."
    assert report == "[Report of the night](#/night.html)"
    assert made.split(", ") == [
        "Network `small_cnn`",
        "dataset `chest`",
        "version `0123456789ab`",
        "compared with version 3",
    ]
    assert "| champion, version 3 |" in version_markdown(compared)
    assert "Report" not in version_markdown(compared)


def test_a_useless_version_is_described_with_a_warning() -> None:
    useless = replace(EVALUATED, verdict=replace(verdict(promote=False), useless="it calls all alike."))
    assert version_markdown(useless).startswith("Warning: Not promoted")


def test_of_several_reevaluations_the_last_is_described() -> None:
    outcome = Reevaluation(
        champion=MODEL, dataset_digest="d", measures={"auroc": measured(0.9)}, measure="auroc", floor=0.7
    )
    text = remeasured_markdown("**Promoted**", outcome, "2026-01-31")
    assert text.startswith(
        "**Promoted**\n\nMeasured again on 2026-01-31, dataset version `d`: **Version 7 still"
    )
    assert remeasured_markdown(text, outcome, "2026-02-28") == text.replace("01-31", "02-28")
    assert remeasured_markdown("", outcome, "2026-01-31").startswith("Measured again on")


@pytest.mark.parametrize(
    "fragment", ["**Ingest**", "**Training**", "**Promoted", "| ingest | 1.2 |", "4.5", "reports/night.html"]
)
def test_a_night_shows_all_of_its_parts(fragment: str) -> None:
    assert fragment in nightly_markdown(NIGHT)


def test_a_cell_cannot_break_its_table() -> None:
    assert table(("a",), [("x|y",)]).splitlines()[2] == "| x/y |"


def test_a_table_of_nothing_is_its_head() -> None:
    assert table(("a", "b"), []) == "| a | b |\n|---|---|"


def test_an_archive_of_another_modality_is_named_with_the_line_to_type() -> None:
    outcome = replace(INGESTED, other_modalities={"MR": 1140, "SR": 2})
    assert "found 1,140 MR and 2 SR, expected CT: add --modality MR" in ingest_markdown(outcome)


def test_a_few_objects_of_other_modalities_are_counted_without_a_remedy() -> None:
    markdown = ingest_markdown(replace(INGESTED, other_modalities={"MR": 60, "SR": 34}))
    assert "**Modality**: CT is taken in; 60 MR and 34 SR left out" in markdown
    assert "add --modality" not in markdown
    assert "**Modality**" not in ingest_markdown(INGESTED)


def test_no_remedy_is_named_for_objects_without_pixels() -> None:
    line = ingest_markdown(replace(INGESTED, other_modalities={"SR": 200}))
    assert "found 200 SR, expected CT" in line
    assert "add --modality" not in line


@pytest.mark.parametrize(
    "outcome", [INGESTED, TRAINED, EVALUATED, NIGHT], ids=lambda outcome: type(outcome).__name__
)
def test_an_outcome_becomes_json_that_every_program_reads(outcome: Any) -> None:
    values = json.loads(json.dumps(plain(outcome), allow_nan=False))
    assert values
    assert {"predictions", "test_keys", "tags"}.isdisjoint({*values, *values.get("evaluation", {})})


def test_the_values_of_a_night_are_the_ones_of_its_stages() -> None:
    values = plain(NIGHT)
    assert values["ingested"]["files_read"] == 12
    assert values["trained"]["candidate"] == {"name": "chest", "version": 7, "run_id": "r"}
    assert values["evaluation"]["verdict"]["promote"] is True
    assert values["promotion"] == {"promoted": True, "champion": 7, "before": None}


def test_what_is_undefined_is_null() -> None:
    assert plain(measured(float("nan")))["value"] is None


def test_a_useless_model_is_warned_of_on_top_and_the_verdict_stands_once() -> None:
    useless = replace(verdict(promote=False), useless="it calls no image right that is 'a'.")
    seen = evaluation_markdown(replace(EVALUATED, verdict=useless))
    assert seen.startswith(f"**Warning: {useless.headline}**")
    assert (seen.count(useless.headline), seen.count("test set")) == (1, 1)


def test_a_training_of_no_use_in_validation_is_warned_of_on_top() -> None:
    tags = {**MODEL.tags, "validation.auroc": "0.1900", "validation.accuracy": "0.6000"}
    seen = training_markdown(replace(TRAINED, candidate=replace(MODEL, tags=tags)))
    assert seen.startswith("**Warning: version 7 is of no use**: its AUROC of 0.190 is no better than chance")


@pytest.mark.parametrize("value", ["0.6000", "nan"])
def test_a_training_of_use_or_without_a_measure_is_not_warned_of(value: str) -> None:
    tags = {**MODEL.tags, "validation.auroc": value}
    assert "Warning" not in training_markdown(replace(TRAINED, candidate=replace(MODEL, tags=tags)))


def test_one_is_singular() -> None:
    seen = ingest_markdown(replace(INGESTED, files_listed=1, examples=1, patients=1))
    assert "1 file listed" in seen
    assert "1 image of 1 patient;" in seen


def test_a_version_that_nothing_can_be_trained_on_is_warned_of_on_top() -> None:
    assert ingest_markdown(replace(INGESTED, untrainable="no 'val'.")).startswith("**Warning**: no 'val'.")


def test_findings_are_in_the_outcome_in_the_place_of_labels() -> None:
    counts = {"present": 3, "absent": 4, "unknown": 5, "patients_present": 1, "patients_absent": 2}
    outcome = replace(
        INGESTED,
        counts={"train": {"": {"examples": 12, "patients": 3}}},
        finding_counts={"train": {"mass": counts}},
        classes=(),
    )
    text = ingest_markdown(outcome)
    assert "| split | finding | present | absent | unknown | patients with it | patients without |" in text
    assert "| train | mass | 3 | 4 | 5 | 1 | 2 |" in text
    assert "| split | label |" not in text
