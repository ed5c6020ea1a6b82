"""The seam between kinds of task: classification behind it, and another objective all the way to a report."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
import torch
from mlflow import MlflowClient

from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import UserFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.release_compatibility import canonical, canonical_json
from imaging.statistics.verdict import GateConfig
from models.config import TrainConfig
from models.objectives.classification import Classification, class_weights
from models.objectives.objective_catalog import (
    OBJECTIVES,
    contract_of,
    file_metadata,
    objective_class,
    objective_of,
)
from models.portable.contract import Contract
from models.portable.export import export_onnx
from models.portable.predictor import Predictor
from models.training.epoch_history import Progress, read_history
from models.training.launch import launch
from models.training.process_group import called
from models.training.worker import TrainData
from services.flow_requests import NightlyRequest
from services.mlflow.registry import Registered, model_file, model_tags, set_alias
from services.mlflow.runs import start_run
from services.ray.cluster import training_ray
from services.ray.trainer import EpochReporter, FitOutcome, TrainingJob, fit, on_ray
from services.settings import Settings
from tasks import training
from tasks.evaluation import Evaluation, evaluate_pair, metrics_of
from tasks.promotion import promote_candidate
from tasks.report.outcomes import measures_markdown, training_markdown
from tasks.reporting import Night, publish_report
from tasks.training import TrainOutcome, make_candidate
from tests.pixel_objective import PixelNetwork, Pixels, pixel_worker, register_pixels
from tests.synthetic import GREY, version_of

CLASSES = Classification(classes=("dark", "bright"), threshold=0.3)
CONFIG = {
    "objective": "pixels",
    "epochs": 12,
    "batch_size": 8,
    "workers": 1,
    "optimizer": {"learning_rate": 0.03},
}
GATE = GateConfig(min_patients=2, draws=200)


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    register_pixels(monkeypatch)


# Classification behind the protocol


def test_balanced_classes_weigh_the_same_in_all() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    weights = class_weights(labels, 2, "balanced")
    assert weights[0] * 9 == pytest.approx(weights[1] * 3)


def test_balanced_weights_are_one_on_average() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    assert class_weights(labels, 2, "balanced")[labels].mean() == pytest.approx(1)


def test_a_class_without_examples_weighs_nothing() -> None:
    assert class_weights(np.array([0, 2, 2]), 3, "balanced")[1] == 0


def test_without_class_weights_every_example_counts_one() -> None:
    assert class_weights(np.array([0, 0, 1]), 2, "none").tolist() == [1.0, 1.0]


def test_a_higher_auroc_is_better() -> None:
    higher, lower = ({"val_auroc": auroc, "val_loss": auroc} for auroc in (0.9, 0.8))
    assert CLASSES.merit(higher, "auroc") > CLASSES.merit(lower, "auroc")


@pytest.mark.parametrize("auroc", [1.0, float("nan")])
def test_the_loss_decides_between_equal_or_undefined_aurocs(auroc: float) -> None:
    better, worse = ({"val_auroc": auroc, "val_loss": loss} for loss in (0.1, 0.2))
    assert CLASSES.merit(better, "auroc") > CLASSES.merit(worse, "auroc")


def test_a_lower_loss_is_better_where_the_loss_selects() -> None:
    better, worse = ({"val_auroc": 1 - loss, "val_loss": loss} for loss in (0.1, 0.2))
    assert CLASSES.merit(better, "loss") > CLASSES.merit(worse, "loss")


def test_a_classifiers_file_has_the_metadata_of_release_0_1_0() -> None:
    assert list(file_metadata(CLASSES, GREY).items()) == [
        ("classes", '["dark", "bright"]'),
        ("spec", canonical_json(GREY)),
        ("input_units", "grey levels 0..255"),
        ("threshold", "0.3"),
    ]


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_a_file_without_a_contract_is_a_classifier(threshold: float | None) -> None:
    objective = Classification(classes=("dark", "bright"), threshold=threshold)
    metadata = file_metadata(objective, GREY)
    assert "contract" not in metadata
    assert objective_of(metadata) == objective


def test_the_contract_of_a_classifier_follows_from_its_classes() -> None:
    contract = contract_of(CLASSES, PreprocessSpec(kind="volume", slices=6))
    (image,), (probabilities,) = contract.inputs, contract.outputs
    assert (image.name, image.shape, image.units) == ("image", (None, 6, None, None), "Hounsfield units")
    assert (probabilities.name, probabilities.shape) == ("probabilities", (None, 2))
    assert probabilities.axes[1].labels == ("dark", "bright")


def test_every_objective_has_a_measure_that_may_decide_and_one_that_selects() -> None:
    for name, objective in OBJECTIVES.items():
        assert objective.name == name
        assert objective.selectors and objective.epoch_titles
        assert any(measure.decides for measure in objective.measures.values())


def test_a_measure_that_may_decide_is_better_when_higher() -> None:
    for objective in OBJECTIVES.values():
        assert all(m.higher_is_better for m in objective.measures.values() if m.decides)


# Contracts


def test_a_contract_comes_back_from_its_entry(pixels: None) -> None:
    contract = contract_of(Pixels(), GREY)
    assert Contract.read(contract.model_dump_json()) == contract


def test_fields_of_a_newer_contract_are_ignored_and_logged(
    pixels: None, caplog: pytest.LogCaptureFixture
) -> None:
    contract = contract_of(Pixels(), GREY)
    newer = json.loads(contract.model_dump_json())
    newer |= {"author": "somebody"}
    newer["outputs"][0]["colour"] = "red"
    assert Contract.read(json.dumps(newer)) == contract
    assert "the model's contract was written by a newer radloop: read without author, colour" in caplog.text


@pytest.mark.parametrize("entry", ['{"format": 2, "objective": "pixels"}', "[]", "not JSON"])
def test_a_contract_of_another_format_is_refused_with_the_remedy(entry: str) -> None:
    with pytest.raises(
        UserFault, match=r"another format.*install the release of radloop that made the model"
    ):
        objective_of({"contract": entry, "spec": "{}"})


def test_a_model_of_an_unknown_objective_is_refused_with_the_remedy() -> None:
    metadata = file_metadata(Pixels(), GREY)
    with pytest.raises(UserFault, match=r"no objective is called 'pixels'.*install the release"):
        objective_of(metadata)


@pytest.mark.parametrize(
    ("outward", "fault"),
    [
        (
            3,
            r"output 'pixels' of objective 'pixels' has the shape \(2, 3, 16, 16\) and its contract expects ",
        ),
        (1, r"\(2, 1, 16, 16\).*expects \(2, 2, 16, 16\) \(batch, kind, row, column\)"),
    ],
)
def test_outputs_of_another_shape_are_refused_before_anything_is_exported(
    pixels: None, outward: int, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it was exported"))
    with pytest.raises(UserFault, match=fault):
        export_onnx(PixelNetwork(1, outward), GREY, Pixels())


def test_outputs_of_other_names_are_refused(pixels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pixels, "activate", lambda self, outputs: {"pixels": outputs["both"]})
    with pytest.raises(UserFault, match=r"gives the outputs \['pixels'\].*names \['level', 'pixels'\]"):
        export_onnx(PixelNetwork(1), GREY, Pixels())


# Choices


def test_an_objective_selects_by_its_own_measure(pixels: None) -> None:
    assert TrainConfig.model_validate({"objective": "pixels"}).measure == "explained"
    assert TrainConfig().measure == "auroc"


def test_a_measure_of_another_objective_is_refused(pixels: None) -> None:
    with pytest.raises(
        ValueError, match="'auroc' cannot select an epoch of pixels: choose one of explained, loss"
    ):
        TrainConfig.model_validate({"objective": "pixels", "measure": "auroc"})


def test_a_gate_on_a_measure_of_another_objective_is_refused_before_the_night(pixels: None) -> None:
    night = {"source": "x", "training": CONFIG}
    for measure in ("auroc", "error"):
        with pytest.raises(ValueError, match=f"gate cannot decide on '{measure}': choose one of explained"):
            NightlyRequest.model_validate(night | {"gate": {"measure": measure}})
    part = {"measure": "explained[negative]"}
    assert NightlyRequest.model_validate(night | {"gate": part}).gate.measure == "explained[negative]"
    assert (
        NightlyRequest.model_validate(night | {"gate": {"measure": "explained"}}).gate.measure == "explained"
    )


# The whole way of another objective


@dataclass(frozen=True)
class Way:
    """What another objective has left: its model, what it was compared with, and the page."""

    version: DatasetVersion
    history: list[dict[str, float]]
    job: TrainingJob
    candidate: Registered
    evaluation: Evaluation
    page: str


class HereProcess:
    """What a process with torch answers, from this one."""

    def call(self, function: str, **arguments: object) -> object:
        return called(function, **arguments)


@pytest.fixture(scope="module")
def kept() -> dict[str, Way]:
    return {}


@pytest.fixture
def way(
    tracked: Settings, pixels: None, kept: dict[str, Way], tmp_path_factory: pytest.TempPathFactory
) -> Way:
    """Return the way of an objective with two values for each pixel, from the loop to the report."""
    if not kept:
        kept["way"] = go(tracked, tmp_path_factory.mktemp("pixels"))
    return kept["way"]


def go(settings: Settings, folder: Path) -> Way:
    version = version_of(settings.folder_store, name="pixels")
    config = TrainConfig.model_validate(CONFIG)
    objective = objective_class(config.objective).of_version(version)
    data = TrainData(train=version.examples("train"), val=version.examples("val"), objective=objective)
    checkpoint = launch(config, data, folder)
    job = job_of(settings, version, config, folder)
    history = read_history(folder)
    outcome = FitOutcome(
        checkpoint=str(checkpoint),
        best_epoch=Progress.read(checkpoint).best_epoch,
        history=tuple(history),
        timings_s={},
    )
    with pytest.MonkeyPatch.context() as patch:
        # The objective is in the tables of this process alone.
        patch.setattr(training, "torch_process", HereProcess)
        candidate = make_candidate(settings, job, outcome, version)
    evaluation = evaluate_pair(settings, candidate, None, {GREY.digest: version}, GATE)
    promotion = promote_candidate.fn(evaluation, settings)
    night = Night(
        ingested=ingested(version),
        trained=TrainOutcome(
            candidate=candidate, trained_now=True, best_epoch=11, history=tuple(history), timings_s={}
        ),
        evaluation=evaluation,
        promotion=promotion,
        timings_s={"train": 1.0},
    )
    page = Path(publish_report.fn(night, settings)).read_text()
    return Way(version, history, job, candidate, evaluation, page)


def job_of(settings: Settings, version: DatasetVersion, config: TrainConfig, folder: Path) -> TrainingJob:
    return TrainingJob(
        store=settings.dataset_place,
        cache=str(settings.cache),
        cache_bytes=settings.cache_bytes,
        dataset=version.head.dataset,
        digest=version.digest,
        train=canonical(config),
        run_folder=str(folder),
        run_id=start_run(settings, version.head.dataset, "run", {}, {}),
        flow_run_id="f",
    )


def ingested(version: DatasetVersion) -> IngestOutcome:
    return IngestOutcome(
        dataset="pixels",
        digest=version.digest,
        changed=True,
        files_listed=30,
        files_read=30,
        files_removed=0,
        examples=30,
        patients=30,
        counts=version.counts.labelled,
        quarantined={},
        ignored={},
        labels_without_image=0,
        images_without_label=0,
        images_in_conflict=0,
        problems_file=None,
    )


@pytest.mark.slow
def test_the_loop_learns_it_and_validates_by_its_own_measures(way: Way) -> None:
    first, *_, last = way.history
    assert last["train_loss"] < first["train_loss"]
    assert last["val_explained"] > first["val_explained"]
    assert not any("auroc" in key or "accuracy" in key for key in last)


@pytest.mark.slow
def test_its_file_gives_its_outputs_with_the_axes_of_its_contract(tracked: Settings, way: Way) -> None:
    predictor = Predictor.load(model_file(tracked, way.candidate))
    outputs = predictor.run(np.full((3, 1, 20, 31), 51, np.float32))
    assert {name: output.shape for name, output in outputs.items()} == {
        "pixels": (3, 2, 16, 16),
        "level": (3,),
    }
    assert predictor.contract == contract_of(Pixels(), GREY)
    assert predictor.predict_levels(np.empty((0, 16, 16), np.uint8))["pixels"].shape == (0, 2, 16, 16)


@pytest.mark.slow
def test_its_file_has_its_contract_and_what_was_calibrated(tracked: Settings, way: Way) -> None:
    metadata = {
        item.key: item.value for item in onnx.load_model(model_file(tracked, way.candidate)).metadata_props
    }
    assert Contract.read(metadata["contract"]).outputs[0].meaning == "the image, its negative"
    assert objective_of(metadata) == way.candidate.objective
    assert way.candidate.objective.offset > 0  # type: ignore[attr-defined]


@pytest.mark.slow
def test_its_version_has_tags_and_a_signature_of_its_own(tracked: Settings, way: Way) -> None:
    tags = MlflowClient(tracked.tracking_uri).get_model_version(way.candidate.name, "1").tags
    assert tags["contract"] and "classes" not in tags and "threshold" not in tags
    mlflow.set_tracking_uri(tracked.tracking_uri)
    signature = mlflow.models.get_model_info(way.candidate.uri).signature
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [
        ("pixels", (-1, 2, 16, 16)),
        ("level", (-1,)),
    ]


@pytest.mark.slow
def test_a_consumer_of_mlflow_gets_its_outputs(tracked: Settings, way: Way) -> None:
    mlflow.set_tracking_uri(tracked.tracking_uri)
    outputs = mlflow.pyfunc.load_model(way.candidate.uri).predict(
        {"image": np.zeros((2, 1, 9, 9), np.float32)}
    )
    assert {name: np.shape(output) for name, output in outputs.items()} == {
        "pixels": (2, 2, 16, 16),
        "level": (2,),
    }


@pytest.mark.slow
def test_the_gate_decides_on_its_measure(way: Way) -> None:
    verdict = way.evaluation.verdict
    assert (verdict.measure, verdict.candidate.title) == ("explained", "Explained energy")
    assert "the candidate's Explained energy of" in verdict.reason
    assert verdict.promote
    assert "test_explained_lower" in metrics_of(way.evaluation.measures)


@pytest.mark.slow
def test_it_is_compared_with_a_champion_of_its_kind(tracked: Settings, way: Way) -> None:
    second_version = Registered(
        name="pixels",
        version=2,
        run_id=way.candidate.run_id,
        tags={**way.candidate.tags, "training.key": "another"},
    )
    set_alias(tracked, way.candidate, "champion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.evaluation.model_file", lambda settings, _: model_file(settings, way.candidate))
        verdict = evaluate_pair(
            tracked, second_version, way.candidate, {GREY.digest: way.version}, GATE
        ).verdict
    assert (verdict.difference, verdict.promote) == (0, True)


@pytest.mark.slow
def test_too_few_patients_are_its_own_matter(tracked: Settings, way: Way) -> None:
    gate = GateConfig(min_patients=1000, draws=200)
    verdict = evaluate_pair(tracked, way.candidate, None, {GREY.digest: way.version}, gate).verdict
    assert "patients are tested and the gate asks for 1000" in verdict.reason


@pytest.mark.slow
def test_the_report_shows_its_section_and_no_class(way: Way) -> None:
    headings = [line.strip() for line in way.page.split("<h2>")[1:]]
    assert [heading.partition("</h2>")[0] for heading in headings] == [
        "Promoted",
        "Performance on the test part",
        "Worst pixels",
        "Training",
        "Data",
        "Where the time went",
        "Provenance",
    ]
    assert "Explained energy" in way.page and "More is better, except for Pixel error." in way.page
    assert not any(word in way.page for word in ("AUROC", "ROC curve", "Accuracy"))


@pytest.mark.slow
def test_the_terminal_shows_its_measures(tracked: Settings, way: Way) -> None:
    outcome = TrainOutcome(
        candidate=way.candidate, trained_now=True, best_epoch=11, history=tuple(way.history), timings_s={}
    )
    assert "| epoch | train loss | val loss | val Explained energy |" in training_markdown(outcome)
    assert "| Pixel error | " in measures_markdown(way.evaluation.measures, {})
    lines: list[str] = []
    EpochReporter(way.job, tracked, lines.append).report_new()
    assert f"val Explained energy {way.history[0]['val_explained']:.3f}" in lines[0]


@pytest.mark.slow
def test_a_classifier_cannot_be_compared_with_it(tracked: Settings, way: Way) -> None:
    tags = model_tags(GREY, TrainConfig(), Classification(classes=("a", "b")))
    other = Registered(name="pixels", version=3, run_id="r", tags=tags)
    with pytest.raises(UserFault, match=r"knows the classes \['a', 'b'\] and the dataset has"):
        evaluate_pair(tracked, other, None, {GREY.digest: way.version}, GATE)


@pytest.mark.slow
def test_its_loss_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, pixels: None, tracked: Settings
) -> None:
    version = version_of(tracked.folder_store, name="pixels-shared")
    data = TrainData(train=version.examples("train"), val=version.examples("val"), objective=Pixels())
    histories = []
    for workers in (1, 2):
        order = {"name": "sgd", "learning_rate": 0.03}
        config = TrainConfig.model_validate(
            CONFIG | {"workers": workers, "batch_size": 7, "optimizer": order, "precision": "fp32"}
        )
        launch(config, data, tmp_path / str(workers))
        histories.append(read_history(tmp_path / str(workers)))
    for alone, together in zip(*histories, strict=True):
        for measure in ("train_loss", "val_loss", "val_explained"):
            assert alone[measure] == pytest.approx(together[measure], abs=1e-4), measure


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["models.objectives.objective_catalog", "models.config", "services.flow_requests"]
)
def test_choosing_an_objective_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_workers_of_ray_train_it(
    tracked: Settings, pixels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.launch.train_loop", pixel_worker)
    config = TrainConfig.model_validate(CONFIG | {"workers": 2, "epochs": 2})
    version, lines = version_of(tracked.folder_store, name="pixels-ray"), list[str]()
    with training_ray(config.workers):
        outcome = fit(job_of(tracked, version, config, tmp_path), tracked, lines.append, on_ray)
    assert [row["epoch"] for row in outcome.history] == [0, 1]
    assert "val Explained energy" in lines[-1]
    assert (Path(outcome.checkpoint) / "best.safetensors").is_file()
