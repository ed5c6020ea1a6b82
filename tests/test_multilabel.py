"""Findings as an objective and in statistics: what is unknown counts nowhere, and each finding is measured alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch.nn import functional

from imaging.errors import UserFault
from imaging.statistics.classification import roc_curve
from imaging.statistics.intervals import measure_all, value_of
from imaging.statistics.multilabel import MEASURES, FindingPredictions
from imaging.statistics.verdict import GateConfig, decide, gate_measure
from imaging.store.folder_store import FolderStore
from models.config import TrainConfig
from models.objectives.classification import Classification
from models.objectives.multilabel import Multilabel
from models.objectives.objective_catalog import contract_of, file_metadata, objective_of
from models.training.batches import ArrayExamples
from tasks.evaluation import metrics_of, reported_measures
from tasks.report.finding_sections import curves, finding_calls, finding_curves, finding_measures, surest
from tasks.report.page import ExampleViews
from tests.synthetic import GREY, findings_version, version_of

NAMES = ("mass", "oedema")
OBJECTIVE = Multilabel(findings=NAMES, thresholds=(0.4, 0.6))
N = 40


def predictions(seed: int = 0, noise: float = 0.3, **changes: Any) -> FindingPredictions:
    """Return predictions of two findings in two images of each of 20 patients, some of which are unknown."""
    draw = np.random.default_rng(seed)
    truth = np.array([[n % 2, n % 5 == 0] for n in range(N)], np.int8)
    probabilities = np.clip(truth * 0.4 + 0.3 + draw.normal(0, noise, truth.shape), 0, 1)
    truth[::7, 0] = truth[1::9, 1] = -1
    made = FindingPredictions(
        truth=truth,
        probabilities=probabilities.astype(np.float32),
        patients=np.array([f"p{n // 2:02d}" for n in range(N)]),
        findings=NAMES,
        thresholds=(0.5, 0.5),
    )
    return replace(made, **changes)


def known(made: FindingPredictions, finding: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rows = made.truth[:, finding] >= 0
    return made.truth[rows, finding], made.probabilities[rows, finding].astype(np.float64)


# Statistics, beside scikit-learn on the images of which a finding is known


@pytest.mark.parametrize("finding", [0, 1])
def test_a_measure_of_a_finding_is_that_of_the_images_of_which_it_is_known(finding: int) -> None:
    made = predictions()
    truth, scores = known(made, finding)
    called = scores >= 0.5
    expected = {
        "auroc": roc_auc_score(truth, scores),
        "auprc": average_precision_score(truth, scores),
        "f1": f1_score(truth, called),
        "accuracy": (called == truth).mean(),
        "recall": called[truth == 1].mean(),
        "specificity": 1 - called[truth == 0].mean(),
        "precision": truth[called].mean(),
        "brier": ((scores - truth) ** 2).mean(),
    }
    values = {name: value_of(made, f"{name}[{NAMES[finding]}]") for name in expected}
    assert values == pytest.approx(expected)


def test_a_macro_measure_is_the_plain_mean_of_the_findings() -> None:
    made = predictions()
    for name in MEASURES:
        assert value_of(made, name) == pytest.approx(
            np.mean([value_of(made, f"{name}[{finding}]") for finding in NAMES])
        )


def test_what_is_unknown_changes_no_measure() -> None:
    made = predictions()
    other = np.where(made.truth < 0, 1 - made.probabilities, made.probabilities)
    assert {n: m.value for n, m in measure_all(made, draws=200).items()} == {
        n: m.value for n, m in measure_all(replace(made, probabilities=other), draws=200).items()
    }


def test_a_finding_that_no_test_image_has_is_undefined_and_so_is_the_mean() -> None:
    made = predictions()
    truth = made.truth.copy()
    truth[:, 1] = np.minimum(truth[:, 1], 0)
    made = replace(made, truth=truth)
    assert np.isnan(value_of(made, "auroc[oedema]")) and np.isnan(value_of(made, "auroc"))
    assert np.isfinite(value_of(made, "auroc[mass]"))


def test_the_interval_of_a_finding_counts_the_patients_of_whom_it_is_known() -> None:
    made = predictions()
    truth = made.truth.copy()
    truth[:10, 0] = -1
    measures = measure_all(replace(made, truth=truth), ["auroc", "auroc[mass]"], draws=200)
    assert (measures["auroc"].patients, measures["auroc[mass]"].patients) == (20, 15)
    assert measures["auroc[mass]"].lower < measures["auroc[mass]"].value < measures["auroc[mass]"].upper


def test_truth_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="truth is 1, 0 or -1, and reaches from -1 to 2"):
        predictions(truth=np.where(predictions().truth == 1, 2, predictions().truth))


def test_a_probability_that_is_none_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserFault, match="not a number from 0 to 1: its training diverged"):
        predictions(probabilities=np.full((N, 2), np.nan))


# Gate


def test_the_gate_decides_on_a_named_finding_alone() -> None:
    made = predictions()
    # "mass" is called upside down, and "oedema" is seen well: the mean is no better than chance, the finding is.
    made = replace(made, probabilities=np.stack([1 - made.probabilities[:, 0], made.probabilities[:, 1]], 1))
    gate = GateConfig(measure="auroc[oedema]", floor=0.6, min_patients=2, draws=200)
    verdict = decide(made, None, gate)
    assert verdict.candidate.title == "AUROC of oedema"
    assert verdict.candidate.value == pytest.approx(roc_auc_score(*known(made, 1)))


def test_a_finding_that_is_not_there_cannot_decide() -> None:
    with pytest.raises(
        UserFault, match=r"cannot decide on 'auroc\[lung\]': choose one of auroc, .*auroc\[mass\]"
    ):
        gate_measure(predictions().measures, GateConfig(measure="auroc[lung]"))


@pytest.mark.parametrize(("measure", "least", "few"), [("auroc", 9, True), ("auroc[mass]", 9, False)])
def test_only_the_finding_that_decides_needs_its_patients(measure: str, least: int, few: bool) -> None:
    # Of eight patients "oedema" is known as present.
    verdict = decide(
        predictions(noise=0.01), None, GateConfig(measure=measure, min_patients=least, draws=200)
    )
    assert ("'oedema' is known as present of" in verdict.reason) is few


@pytest.mark.parametrize(
    ("probabilities", "fault"),
    [(0.5, "AUROC, mean of findings of 0.500 is no better than chance"), (None, "")],
)
def test_a_model_of_no_use_is_seen(probabilities: float | None, fault: str) -> None:
    made = predictions(noise=0.01)
    if probabilities is not None:
        made = replace(made, probabilities=np.full((N, 2), probabilities))
    assert made.useless().startswith(f"its {fault}" if fault else "")
    assert bool(made.useless()) is bool(fault)


def test_a_model_that_calls_all_to_have_all_is_of_no_use() -> None:
    assert "of no finding" in predictions(noise=0.01, thresholds=(0.0, 0.0)).useless()


def test_models_of_other_findings_or_examples_are_not_compared() -> None:
    made = predictions()
    assert "knows the findings mass, lung" in made.not_comparable(replace(made, findings=("mass", "lung")))
    assert "did not predict the same" in made.not_comparable(replace(made, truth=np.abs(made.truth)))
    assert made.not_comparable(predictions(seed=1)) == ""


def test_the_measure_of_the_gate_is_reported_and_named_as_mlflow_allows() -> None:
    made = predictions(findings=("a/b & c", "oedema"))
    measures = reported_measures(made, GateConfig(measure="recall[oedema]", draws=200))
    names = metrics_of(measures)
    assert {"test_auroc.a_b _ c", "test_recall_lower.oedema", "test_auroc"} <= names.keys()


# Objective


def examples() -> ArrayExamples:
    findings = np.array([[1, 0], [0, -1], [0, 1], [-1, 0], [0, 0]], np.int8)
    return ArrayExamples(np.zeros((5, 16, 16), np.uint8), np.full(5, -1), findings)


def fitted(weights: str) -> Multilabel:
    return OBJECTIVE.fitted(examples(), TrainConfig(objective="multilabel", class_weights=weights))  # type: ignore[arg-type]


def test_the_loss_is_the_cross_entropy_of_what_is_known() -> None:
    """Beside torch's own function on the cells that are known."""
    objective, logits = fitted("none"), torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) * 9
    targets = {k: torch.from_numpy(v) for k, v in objective.targets(examples(), np.arange(5)).items()}
    findings = torch.from_numpy(examples().findings).float()
    rows = findings >= 0
    expected = functional.binary_cross_entropy_with_logits(logits[rows], findings[rows], reduction="sum")
    assert objective.loss({"logits": logits}, targets) == pytest.approx(float(expected), rel=1e-5)
    assert objective.weights(examples()).sum() == int(rows.sum())


def test_what_is_unknown_has_no_gradient() -> None:
    objective, logits = fitted("balanced"), torch.zeros(5, 2, requires_grad=True)
    targets = {k: torch.from_numpy(v) for k, v in objective.targets(examples(), np.arange(5)).items()}
    objective.loss({"logits": logits}, targets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, torch.from_numpy(examples().findings < 0))


def test_balanced_both_sides_of_a_finding_weigh_the_same() -> None:
    weights = fitted("balanced").targets(examples(), np.arange(5))["weights"]
    present = examples().findings == 1
    for column in range(2):
        assert weights[present[:, column], column].sum() == pytest.approx(
            weights[~present[:, column], column].sum()
        )


def test_the_validation_loss_is_weighted_as_in_training() -> None:
    objective, scores = fitted("balanced"), np.full((5, 2), 0.25, np.float32)
    targets = {k: torch.from_numpy(v) for k, v in objective.targets(examples(), np.arange(5)).items()}
    logits = torch.from_numpy(np.log(scores / (1 - scores)))
    expected = float(objective.loss({"logits": logits}, targets)) / objective.weights(examples()).sum()
    measures = objective.epoch_measures(scores, examples())
    assert measures["loss"] == pytest.approx(expected, rel=1e-5)
    assert measures.keys() - {"loss"} == Multilabel.epoch_titles.keys()


def test_each_finding_is_calibrated_on_the_images_of_which_it_is_known() -> None:
    scores = np.array([[0.9, 0.3], [0.2, 0.9], [0.4, 0.8], [0.6, 0.1], [0.1, 0.5]], np.float32)
    assert OBJECTIVE.calibrated(lambda _: scores, examples()).thresholds == pytest.approx((0.65, 0.65))


def test_a_finding_on_one_side_in_validation_is_named() -> None:
    one = replace(examples(), findings=np.array([[1, 0]] * 5, np.int8))
    with pytest.raises(UserFault, match=r"'mass' is known on one side alone in validation \(5 images\)"):
        OBJECTIVE.calibrated(lambda _: np.ones((5, 2), np.float32), one)


@pytest.mark.parametrize("thresholds", [None, (0.25, 0.5)])
def test_a_file_names_its_findings_and_thresholds(thresholds: tuple[float, ...] | None) -> None:
    objective = Multilabel(findings=NAMES, thresholds=thresholds)
    metadata = file_metadata(objective, GREY)
    assert (objective_of(metadata), metadata["needs"]) == (objective, "0.2.0")
    assert "findings" not in metadata


def test_the_output_has_the_findings_as_labels() -> None:
    (output,) = contract_of(OBJECTIVE, GREY).outputs
    assert (output.name, output.shape, output.axes[1].labels) == ("probabilities", (None, 2), NAMES)


def test_scores_are_put_in_the_order_of_the_version(tmp_path: Any) -> None:
    version = findings_version(FolderStore(tmp_path))
    objective = Multilabel(findings=("right", "left"), thresholds=(0.1, 0.2))
    val = version.examples("val")
    scores = np.tile(np.array([[0.3, 0.7]], np.float32), (len(val), 1))
    made = objective.predictions(scores, val, version)
    assert (made.probabilities[0].tolist(), made.thresholds) == (pytest.approx([0.7, 0.3]), (0.2, 0.1))


def test_classes_and_findings_are_not_taken_for_each_other(tmp_path: Any) -> None:
    findings, classes = findings_version(FolderStore(tmp_path / "f")), version_of(FolderStore(tmp_path / "c"))
    with pytest.raises(UserFault, match=r"one label for each image, dark, bright, .* --findings"):
        Multilabel.of_version(classes).check(classes)
    with pytest.raises(UserFault, match=r"has findings, .*: choose objective multilabel"):
        Classification.of_version(findings).check(findings)
    assert "knows the findings ['mass', 'oedema'] and the dataset has ['dark'" in OBJECTIVE.refusal(classes)


# Report


VIEWS = ExampleViews(images=lambda at: np.zeros((len(at), 8, 8), np.uint8), outputs=lambda at: {})


def test_the_table_of_findings_has_patients_and_intervals_of_each() -> None:
    made = predictions()
    section = finding_measures(made, predictions(seed=1), VIEWS)
    assert len(section.rows) == 2 and all(len(row) == len(section.head) for row in section.rows)
    counts = made.count_patients(1)
    assert section.rows[1][:2] == ("oedema", f"{counts['present']} / {counts['absent']}")
    assert "(" in section.rows[1][2]


def test_the_surest_calls_are_of_findings_that_are_known() -> None:
    right, wrong = surest(predictions(), 6)
    made = predictions()
    for places, is_right in ((right, True), (wrong, False)):
        called = made.probabilities[tuple(places.T)] >= 0.5
        truth = made.truth[tuple(places.T)]
        assert len(places) and (truth >= 0).all()
        assert ((called == truth) == is_right).all()


def test_every_section_is_made() -> None:
    gallery = finding_calls(predictions(), None, VIEWS).gallery
    assert gallery[0].tone == "wrong" and len(gallery) == 12
    assert len(finding_curves(predictions(), None, VIEWS).pictures) == 2
    many = tuple(f"f{n}" for n in range(10))
    wide = FindingPredictions(
        truth=np.tile(predictions().truth, 5),
        probabilities=np.tile(predictions().probabilities, 5),
        patients=predictions().patients,
        findings=many,
        thresholds=(0.5,) * 10,
    )
    assert curves(wide, roc_curve, ("x", "y")).startswith("data:image/svg")
