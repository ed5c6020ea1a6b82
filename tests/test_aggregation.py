"""Aggregation of images to series, studies and patients: rules, units and their truth, and what is measured of them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from torch import nn

from imaging.dataset.tables.shard import write_shard
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import UserFault
from imaging.statistics.verdict import GateConfig
from imaging.store.folder_store import FolderStore
from imaging.store.protocol import Store
from models.config import TrainConfig
from models.networks.catalog import build
from models.networks.layers import EmbeddingHead, with_embedding
from models.objectives.aggregation import EACH_IMAGE, RULES, AggregateConfig, Units
from models.objectives.classification import Classification
from models.objectives.multilabel import Multilabel
from models.objectives.objective_catalog import check_training, file_metadata, objective_of
from models.portable.export import calibrated_by_file, export_onnx, verify_export
from models.portable.predictor import Predictor
from models.training import attention
from models.training.attention import add_attention, weighted_mean
from models.training.launch import opened
from models.training.ranks import Ranks
from models.training.validation import score, validate
from models.training.worker import TrainData, Worker
from services.mlflow.registry import Registered, by_version
from services.settings import Settings
from tasks.evaluation import evaluate_pair, predict
from tasks.report.outcomes import measures_markdown
from tests.synthetic import (
    GREY,
    bright_model,
    built,
    example,
    finding_tables,
    measured,
    recipe,
    register_bright,
)

BY_STUDY = AggregateConfig(over="study", rule="noisy-or")
CLASSES = Classification(classes=("dark", "bright"), aggregation=BY_STUDY)
GATE = GateConfig(min_patients=1, draws=200)
DOCUMENTED = next(
    block
    for block in re.findall(
        r"```python\n(.*?)```",
        (Path(__file__).parent.parent / "docs" / "consumers.md").read_text(),
        re.DOTALL,
    )
    if "def aggregate" in block
)
"""The way from the probabilities of images to that of their unit that consumers are given."""
SLICES = 3
"""Images of a study of `studies`."""


@dataclass(frozen=True)
class Slices:
    """Examples in memory, with patients."""

    labels: NDArray[np.int64]
    patient_keys: NDArray[np.str_]
    findings: NDArray[np.int8]
    images: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 8, 8), np.uint8))

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.images[index]


def slices(labels: Sequence[int], findings: Any = None, images: Any = None) -> Slices:
    """Return examples of one patient for each; those of findings have no label."""
    count = len(labels)
    return Slices(
        labels=np.array(labels, np.int64),
        patient_keys=np.array([f"p{n}" for n in range(count)]),
        findings=np.empty((count, 0), np.int8) if findings is None else np.array(findings, np.int8),
        images=np.zeros((count, 16, 16), np.uint8) if images is None else images,
    )


def studies(store: Store, patients: int = 30, name: str = "d", **changes: Any) -> DatasetVersion:
    """Publish a study of three images for each patient; only one image of a bright study is bright, and labelled so."""
    count = patients * SLICES
    images = np.full((count, 16, 16), 60, np.uint8)
    bright = [n for n in range(count) if (n // SLICES) % 2 and n % SLICES == 1]
    images[bright] = 190
    shard = write_shard(store, images)
    rows = [
        example(
            n,
            patient_key=f"p{n // SLICES:03d}",
            study_key=f"s{n // SLICES}",
            series_key=f"e{n // SLICES}",
            shard=shard,
            source_label=("dark", "bright")[n in bright],
        )
        | changes
        for n in range(count)
    ]
    return built(store, rows, by=recipe(dataset=name, positive="bright"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def version(folder: Path) -> DatasetVersion:
    return studies(FolderStore(folder))


# Rules, by numbers that are computed by hand


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", [0.3, 0.8]),
        ("max", [0.5, 0.8]),
        ("noisy-or", [1 - 0.9 * 0.5, 0.8]),
        ("attention", [(1 * 0.1 + 3 * 0.5) / 4, 0.8]),
    ],
)
def test_a_rule_gives_what_a_hand_computes(rule: str, expected: list[float]) -> None:
    values, weights = np.array([[0.1], [0.5], [0.8]]), np.log([[1.0], [3.0], [7.0]])
    assert RULES[rule](values, np.array([0, 2]), weights)[:, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p", "count", "expected"), [(1e-9, 300, 3e-7), (1e-3, 300, 1 - 0.999**300), (1, 2, 1)]
)
def test_noisy_or_keeps_what_is_small_and_what_is_sure(p: float, count: int, expected: float) -> None:
    given = np.full((count, 1), p), np.array([0]), np.empty((count, 0))
    assert RULES["noisy-or"](*given)[0, 0] == pytest.approx(expected, rel=1e-6)


def test_attention_of_equal_logits_is_the_mean_and_large_ones_stay_finite() -> None:
    values, starts = np.random.default_rng(0).random((5, 2)), np.array([0, 2])
    equal = RULES["attention"](values, starts, np.full((5, 1), 1e4))
    assert equal == pytest.approx(RULES["mean"](values, starts, np.empty((5, 0))))


def test_attention_in_torch_is_that_of_the_rule() -> None:
    draw = np.random.default_rng(0)
    values, logits = draw.random((6, 3)), draw.normal(0, 3, (6, 3))
    expected = RULES["attention"](values, np.array([0, 1, 4]), logits)
    units = torch.tensor([0, 1, 1, 1, 2, 2])
    given = weighted_mean(torch.from_numpy(logits).float(), torch.from_numpy(values).float(), units, 3)
    assert given.numpy() == pytest.approx(expected, abs=1e-6)


def test_of_two_classes_the_rule_is_for_the_second() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.5]], np.float32)
    units = Units.of(np.array([0, 0]), slices([0, 0]), "study", ("dark", "bright"))
    assert CLASSES.unit_scores(scores, units) == pytest.approx(np.array([[0.45, 0.55]]))


def test_each_finding_has_its_own_attention() -> None:
    objective = Multilabel(findings=("a", "b"), aggregation=AggregateConfig(over="study", rule="attention"))
    scores = np.array([[0.2, 0.6, 0, 0], [0.4, 0.8, np.log(3), -1e3]], np.float32)
    units = Units.of(np.array([0, 0]), slices([-1, -1], [[1, 0], [1, 0]]), "study", ())
    assert objective.unit_scores(scores, units) == pytest.approx(np.array([[0.35, 0.6]]))


# Configuration


def test_the_default_judges_each_image_and_renames_nothing() -> None:
    assert TrainConfig(aggregate=EACH_IMAGE).digest == TrainConfig().digest == "865a7c93d93ce9be"
    assert TrainConfig(aggregate=BY_STUDY).digest != TrainConfig().digest


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"aggregate": {"rule": "max"}}, "set aggregate.over to series, study or patient"),
        (
            {"objective": "segmentation", "aggregate": {"over": "study"}},
            "segmentation judges each image alone",
        ),
        ({"aggregate": {"over": "ward"}}, "'image', 'series', 'study' or 'patient'"),
    ],
)
def test_what_cannot_be_aggregated_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(values)


def test_a_rule_of_one_side_is_refused_for_three_classes(version: DatasetVersion) -> None:
    objective = Classification(classes=("a", "b", "c"), aggregation=BY_STUDY)
    with pytest.raises(
        UserFault, match=r"'noisy-or' is for a class that is there or not.*choose mean or attention"
    ):
        objective.check(version)


def test_a_side_without_unit_is_refused_before_training(tmp_path: Path) -> None:
    # Each patient has an image of both classes, so none is dark.
    rows = [
        example(
            n, patient_key=f"p{n // 2:03d}", study_key=f"s{n // 2}", source_label=("dark", "bright")[n % 2]
        )
        for n in range(40)
    ]
    made = built(FolderStore(tmp_path), [row | {"shard": ""} for row in rows], by=recipe(positive="bright"))
    shard = write_shard(made.store, np.zeros((40, 16, 16), np.uint8))
    made = built(made.store, [row | {"shard": shard} for row in rows], by=recipe(positive="bright"))
    check_training(TrainConfig(), made)
    with pytest.raises(
        UserFault, match=r"no study of split 'train' is of class 'dark'.*set aggregate.over to less"
    ):
        check_training(TrainConfig(aggregate=BY_STUDY), made)


# Units and their truth


def test_a_unit_of_two_classes_has_the_second_where_any_image_has_it() -> None:
    units = Units.of(np.array([0, 1, 0, 1, 2]), slices([0, 0, 1, 0, 1]), "study", ("dark", "bright"))
    assert (units.labels.tolist(), units.disputed, units.left_out) == ([1, 0, 1], 1, 0)
    assert units.patient_keys.tolist() == ["p0", "p1", "p4"]
    assert "1 study with it in some images and not in others, counted as having it" in units.text("max")


def test_a_unit_with_several_of_three_classes_is_left_out_and_counted() -> None:
    units = Units.of(np.array([0, 0, 1, 2, 2]), slices([0, 2, 1, 2, 2]), "series", ("a", "b", "c"))
    assert (units.labels.tolist(), units.left_out, len(units)) == ([1, 2], 1, 2)
    assert units.aggregate(np.eye(5)[:, :3], "mean", np.empty((5, 0))).tolist() == [[0, 0, 1], [0, 0, 0]]
    assert units.text("mean") == (
        "Judged are 2 series of 3 images, by the rule mean; left out: 1 series with images of several classes."
    )


def test_where_no_unit_has_a_truth_that_is_a_fault_of_the_user() -> None:
    with pytest.raises(
        UserFault, match=r"none of 1 patient has images of one class alone.*aggregate over less"
    ):
        Units.of(np.array([0, 0]), slices([0, 2]), "patient", ("a", "b", "c"))


def test_no_examples_are_no_units() -> None:
    assert len(Units.of(np.empty(0, np.int64), slices([]), "study", ("dark", "bright"))) == 0


def test_a_finding_of_a_unit_is_present_in_any_absent_where_known_or_unknown() -> None:
    truth = [[1, 0, -1], [0, -1, -1], [0, 0, 1], [0, -1, 1]]
    units = Units.of(np.array([0, 0, 1, 1]), slices([-1] * 4, truth), "study", ())
    assert units.findings.tolist() == [[1, 0, -1], [0, 0, 1]]
    assert (units.disputed, units.left_out) == (1, 0)


def test_images_of_two_patients_are_never_one_unit(tmp_path: Path) -> None:
    # Study Instance UIDs that anonymisation has made equal.
    same = studies(FolderStore(tmp_path), study_key="s")
    examples = same.examples("train")
    numbers = same.unit_numbers(examples, "study")
    assert np.array_equal(numbers, same.unit_numbers(examples, "patient"))
    assert len(np.unique(numbers)) == len(np.unique(examples.patient_keys)) == len(examples) // SLICES


def test_series_are_known_in_versions_of_every_release(version: DatasetVersion) -> None:
    examples = version.examples("val")
    units = Units.of_version(version, examples, "series")
    assert len(units) == len(examples) / SLICES == len(np.unique(examples.patient_keys))


def test_a_finding_on_one_side_of_all_units_is_refused_before_training(tmp_path: Path) -> None:
    # Of each patient's two images one has the finding.
    store = FolderStore(tmp_path)
    shard = write_shard(store, np.zeros((60, 16, 16), np.uint8))
    rows = [example(n, patient_key=f"p{n // 2:03d}", study_key=f"s{n // 2}", shard=shard) for n in range(60)]
    tables = finding_tables(("mass",), {f"o{n}": str(n % 2) for n in range(60)})
    version = built(store, rows, by=recipe(findings=tables))
    check_training(TrainConfig(objective="multilabel"), version)
    with pytest.raises(
        UserFault, match="finding 'mass' is on one side alone in every study of split 'train'"
    ):
        check_training(TrainConfig(objective="multilabel", aggregate=BY_STUDY), version)


def test_units_of_findings_are_predicted_with_what_is_true_of_them() -> None:
    objective = Multilabel(findings=("a", "b"), thresholds=(0.5, 0.5), aggregation=BY_STUDY)
    rows = slices([-1] * 4, [[1, -1], [0, -1], [0, 0], [0, 1]])
    units = Units.of(np.array([0, 0, 1, 1]), rows, "study", ())
    scores = np.full((4, 2), 0.5, np.float32)
    version: Any = SimpleNamespace(findings=("b", "a"))
    made = objective.predictions(objective.unit_scores(scores, units), units, version)
    assert made.probabilities.tolist() == [[0.75, 0.75]] * 2
    assert made.truth.tolist() == units.findings.tolist() == [[1, -1], [0, 1]]


# Measures of epochs, thresholds, and of the gate


def test_an_epoch_is_measured_by_units_as_scikit_learn_measures_them() -> None:
    draw, count = np.random.default_rng(0), 24
    rows = slices(
        np.repeat(np.arange(8) % 2, 3), images=draw.integers(0, 256, (count, 16, 16), dtype=np.uint8)
    )
    rows = replace(rows, patient_keys=np.repeat([f"p{n}" for n in range(8)], 3))
    units = Units.of(np.repeat(np.arange(8), 3), rows, "study", ("dark", "bright"))
    data = TrainData(train=rows, val=rows, objective=CLASSES, val_units=units)
    worker = Worker.start(
        TrainConfig(network="small_cnn", workers=1, aggregate=BY_STUDY), data, Ranks(), None
    )
    probabilities = score(worker, rows)[:, 1].reshape(8, 3).astype(np.float64)
    expected = roc_auc_score(np.arange(8) % 2, 1 - (1 - probabilities).prod(axis=1))
    assert validate(worker)["val_auroc"] == pytest.approx(expected)


def test_workers_measure_the_validation_units_and_attention_by_the_mean(
    version: DatasetVersion, folder: Path
) -> None:
    job = {
        "store": str(folder),
        "cache": "",
        "cache_bytes": 0,
        "dataset": "d",
        "digest": version.digest,
    }
    config = TrainConfig(aggregate=AggregateConfig(over="patient", rule="attention"))
    _, data = opened(job | {"train": config.model_dump(mode="json")})
    assert data.val_units is not None
    assert len(data.val_units) == len(data.val) // SLICES
    assert data.objective.aggregation == AggregateConfig(over="patient", rule="mean")


def test_the_threshold_is_that_of_units(version: DatasetVersion) -> None:
    # Of levels 60, 60, 60 and of 60, 190, 60: the largest share of grey is 0.235 or 0.745.
    by_max = replace(CLASSES, aggregation=AggregateConfig(over="study", rule="max"))
    calibrated, tags = calibrated_by_file(bright_model(), by_max, version)
    assert calibrated.threshold == pytest.approx((60 + 190) / 2 / 255)
    by_mean = replace(CLASSES, aggregation=AggregateConfig(over="study"))
    calibrated, tags = calibrated_by_file(bright_model(), by_mean, version)
    assert calibrated.threshold == pytest.approx((60 + (60 + 190 + 60) / 3) / 2 / 255)
    assert tags == {}


def aggregated(model: Registered, how: AggregateConfig) -> Registered:
    """Return a registered model whose tags name a rule."""
    return replace(model, tags={**model.tags, "aggregate": how.model_dump_json()})


@pytest.fixture
def model(tracked: Settings) -> Registered:
    return by_version(tracked, "aggregated", 1) or register_bright(tracked, "aggregated")


def test_a_candidate_by_study_meets_a_champion_by_image_on_the_same_studies(
    tracked: Settings, model: Registered, version: DatasetVersion
) -> None:
    candidate = aggregated(model, AggregateConfig(over="study", rule="max"))
    champion = register_bright(tracked, "aggregated")
    evaluation = evaluate_pair(tracked, candidate, champion, {GREY.digest: version}, GATE)
    mine, theirs = evaluation.predictions, evaluation.champion_predictions
    assert theirs is not None
    assert np.array_equal(mine.patients, theirs.patients) and np.array_equal(mine.labels, theirs.labels)
    assert len(mine.patients) == len(np.unique(mine.patients)) == evaluation.verdict.examples
    # The champion has no rule: its probabilities are means.
    assert set(np.round(mine.probabilities[:, 1] * 255)) == {60, 190}
    assert set(np.round(theirs.probabilities[:, 1] * 255)) == {60, 103}
    assert evaluation.verdict.difference == 0
    assert (evaluation.units, evaluation.judged.startswith("Judged are ")) == ("studies", True)


def test_a_rule_is_for_the_units_second_class_whatever_the_models_order() -> None:
    units = Units.of(np.array([0, 0]), slices([0, 1]), "study", ("dark", "bright"))
    by_max = AggregateConfig(over="study", rule="max")
    scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    other = Classification(classes=("bright", "dark"), aggregation=by_max)
    assert CLASSES.aggregated(by_max).unit_scores(scores, units) == pytest.approx(np.array([[0.2, 0.8]]))
    assert other.unit_scores(scores[:, ::-1], units) == pytest.approx(np.array([[0.8, 0.2]]))


def test_the_threshold_of_a_model_with_the_other_order_calls_the_same(version: DatasetVersion) -> None:
    test = version.test_examples("t")
    drawn = np.random.default_rng(0).random(len(test)).astype(np.float32)
    scores = np.stack([1 - drawn, drawn], axis=1)
    names = version.classes
    one = Classification(classes=names, threshold=0.3)
    other = Classification(classes=names[::-1], threshold=0.7)
    calls = [
        model.predictions(given, test, version).predicted
        for model, given in ((one, scores), (other, scores[:, ::-1]))
    ]
    assert 0 < calls[0].sum() < len(test)
    assert np.array_equal(*calls)


def test_many_images_do_not_make_the_noisy_or_of_units_equal() -> None:
    rows = slices([0] * 200 + [1] * 200)
    units = Units.of(np.repeat([0, 1], 200), rows, "study", ("dark", "bright"))
    objective = CLASSES.aggregated(AggregateConfig(over="study", rule="noisy-or"))
    present = np.repeat([0.10, 0.15], 200)
    made = objective.unit_scores(np.stack([1 - present, present], axis=1).astype(np.float32), units)
    assert made[0, 1] < made[1, 1] < 1


def test_the_gallery_has_the_image_with_the_most_evidence_of_a_unit(
    tracked: Settings, model: Registered, version: DatasetVersion
) -> None:
    evaluation = evaluate_pair(tracked, aggregated(model, BY_STUDY), None, {GREY.digest: version}, GATE)
    shown = version.examples_of(evaluation.test_keys)
    assert np.array_equal(shown.labels, evaluation.predictions.labels)
    assert np.array_equal(shown.patient_keys, evaluation.predictions.patients)


def test_a_candidate_by_image_meets_a_champion_by_study_on_images(
    tracked: Settings, model: Registered, version: DatasetVersion
) -> None:
    champion = aggregated(register_bright(tracked, "aggregated"), BY_STUDY)
    evaluation = evaluate_pair(tracked, model, champion, {GREY.digest: version}, GATE)
    test = version.test_examples("t")
    assert evaluation.champion_predictions is not None
    assert len(evaluation.champion_predictions.patients) == len(test)
    assert np.array_equal(evaluation.test_keys, test.instance_keys)


def test_intervals_draw_the_patients_that_they_would_draw_of_images(
    tracked: Settings, model: Registered, version: DatasetVersion
) -> None:
    by_image, by_series = (
        evaluate_pair(tracked, one, None, {GREY.digest: version}, GATE).measures["auroc"]
        for one in (model, aggregated(model, AggregateConfig(over="series", rule="max")))
    )
    assert by_image.patients == by_series.patients
    assert by_image.examples == SLICES * by_series.examples


def test_a_champion_is_measured_again_by_its_own_units(
    tracked: Settings, model: Registered, version: DatasetVersion
) -> None:
    test = version.test_examples("t")
    assert len(predict(tracked, aggregated(model, BY_STUDY), version, test).patients) == len(test) // SLICES


def test_the_terminal_counts_units() -> None:
    assert "test set: 40 studies of 20 patients" in measures_markdown(
        {"auroc": measured(0.9)}, {}, units="studies"
    )


# The model's own word


@pytest.mark.parametrize("rule", RULES)
def test_metadata_name_the_rule_and_are_read_back(rule: Any) -> None:
    for objective in (CLASSES, Multilabel(findings=("a", "b"), thresholds=(0.1, 0.2))):
        made = objective.aggregated(AggregateConfig(over="series", rule=rule))
        metadata = file_metadata(made, GREY)
        assert metadata["aggregate"] == f'{{"over":"series","rule":"{rule}"}}'
        assert metadata["needs"] == "0.2.0"
        assert objective_of(metadata) == made


def test_a_model_of_images_is_described_as_ever() -> None:
    assert file_metadata(CLASSES.aggregated(EACH_IMAGE), GREY).keys() == {
        *("classes", "threshold", "spec", "input_units")
    }


def test_a_rule_of_a_later_release_is_refused_with_the_remedy() -> None:
    later = {**file_metadata(CLASSES, GREY), "aggregate": '{"over":"study","rule":"median"}'}
    with pytest.raises(UserFault, match=r"the model has rule, which this release does not know.*install"):
        objective_of(later)


# Attention


def bags(seed: int, count: int = 60, size: int = 10) -> tuple[Slices, Units]:
    """Return bags of noise; each second one, and so all of its images, has one with a bright pixel."""
    draw = np.random.default_rng(seed)
    images = draw.integers(80, 176, (count * size, 4, 4)).astype(np.uint8)
    images[:, 0, 0] = 60
    truth = np.arange(count) % 2
    images[np.flatnonzero(truth) * size + draw.integers(0, size, count // 2), 0, 0] = 250
    rows = slices(np.repeat(truth, size), images=images)
    return rows, Units.of(np.repeat(np.arange(count), size), rows, "study", ("dark", "bright"))


def weak_classifier() -> nn.Module:
    """Return a network that sees the bright pixel among noise; its embedding are the pixels."""
    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.random.default_rng(5).normal(0, 2, (2, 16))))
        linear.weight[:, 0] = torch.tensor([-2.0, 2.0])
        linear.bias.zero_()
    return nn.Sequential(nn.Flatten(), EmbeddingHead(linear))


def unit_auroc(network: nn.Module, rows: Slices, units: Units, rule: str) -> float:
    with torch.no_grad():
        given = network(torch.from_numpy(rows.images)[:, None].float() / 127.5 - 1)
    scores = np.hstack([given["logits"].softmax(1).numpy(), given["attention"].numpy()])
    objective = CLASSES.aggregated(AggregateConfig.model_construct(over="study", rule=rule))
    return float(roc_auc_score(units.labels, objective.unit_scores(scores, units)[:, 1]))


def fitted(seed: int = 0) -> nn.Module:
    network, (_, units) = weak_classifier(), bags(1)
    objective = CLASSES.aggregated(AggregateConfig(over="study", rule="attention"))
    add_attention(network, objective, units, TrainConfig(seed=seed), 1)
    return network


def test_attention_is_fitted_to_images_of_every_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_IMAGES", 40)
    monkeypatch.setattr(attention, "LEAST_OF_UNIT", 4)
    rows = slices([0] * 100 + [1] * 5)
    units = Units.of(np.array([0] * 100 + [1] * 3 + [2] * 2), rows, "study", ("dark", "bright"))
    bags, members = attention._some(units, np.random.default_rng(0))
    assert dict(zip(bags.tolist(), map(len, members), strict=True)) == {0: 13, 1: 3, 2: 2}
    assert all(np.isin(one, units.members(bag)).all() for bag, one in zip(bags, members, strict=True))


def test_attention_learns_which_image_carries_the_sign() -> None:
    torch.set_num_threads(1)
    rows, units = bags(2)
    network = fitted()
    aurocs = {rule: unit_auroc(network, rows, units, rule) for rule in RULES}
    assert aurocs["attention"] > 0.98 > max(aurocs["mean"] + 0.08, aurocs["max"], aurocs["noisy-or"]), aurocs


def test_attention_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("models.training.attention.STEPS", 3)
    first, _ = fitted(), torch.manual_seed(9)
    same, other = fitted(), fitted(1)
    weights = [network[1].attention.state_dict()["weigh.weight"] for network in (first, same, other)]  # type: ignore[union-attr, index]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_the_documented_way_gives_our_numbers_of_a_file_with_attention(
    version: DatasetVersion, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, examples = build("small_cnn", 2).eval(), version.examples("train")
    with_embedding(network)
    how = AggregateConfig(over="series", rule="attention")
    objective, units = CLASSES.aggregated(how), Units.of_version(version, examples, "series")
    add_attention(network, objective, units, TrainConfig(), 1)
    export_onnx(network, GREY, objective, FolderStore(tmp_path), "small_cnn")
    network[-1].attention.weigh.weight += 1  # type: ignore[union-attr, operator]
    # The graph of the first is kept, the weights are those of the second.
    model = export_onnx(network, GREY, objective, FolderStore(tmp_path), "small_cnn")
    assert verify_export(model, network, GREY, objective) <= 1e-4
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [output.name for output in session.get_outputs()] == ["probabilities", "attention"]
    rule = json.loads(session.get_modelmeta().custom_metadata_map["aggregate"])["rule"]
    predictor = Predictor.load(model.SerializeToString())
    ours = predictor.objective.unit_scores(predictor.score(examples), units)
    documented: dict[str, Any] = {}
    exec(DOCUMENTED, documented)
    for number in range(len(units)):
        images = examples.gather(units.members(number))[:, None].astype(np.float32)
        probabilities, attention = session.run(None, {"image": images})
        (present,) = documented["aggregate"](probabilities[:, 1:], rule, attention)
        assert present == pytest.approx(ours[number, 1], abs=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_the_documented_way_follows_every_rule(rule: str) -> None:
    draw = np.random.default_rng(0)
    values, attention = draw.random((7, 3)), draw.normal(0, 2, (7, 1))
    documented: dict[str, Any] = {}
    exec(DOCUMENTED, documented)
    expected = RULES[rule](values, np.array([0]), attention)[0]
    assert documented["aggregate"](values, rule, attention) == pytest.approx(expected)
