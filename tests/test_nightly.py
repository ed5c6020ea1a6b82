"""A whole night: images in, a champion in the registry out, under a real Prefect, Ray and MLflow.

The images are a made-up hospital and scikit-learn's digits; where the larger real sets are, a night of those too.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pydicom
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from imaging.dataset.version.dataset_version import newest_version, open_version
from imaging.phantom.phantom_archive import PhantomDay
from imaging.phantom.schedule import PhantomSpec
from services.flow_requests import IngestRequest, NightlyRequest, ReevaluateRequest
from services.ledger import entries, ledger_path
from services.mlflow.registry import by_version, with_facts
from services.settings import Settings, activate
from tasks.reevaluation import Reevaluation
from tasks.reporting import NightlyReport
from tests.conftest import Running, fresh_environment
from tests.public_images import DIGIT_PARTS, write_digits, write_findings, write_hospital
from tests.requirements import DATA, image_sets

EPOCHS = 2
TRAINING = {"network": "small_cnn", "epochs": EPOCHS, "batch_size": 4, "ema_decay": 0.5}
ALONE = TRAINING | {"workers": 1}
BY_STUDY = {"aggregate": {"over": "study", "rule": "attention"}}
GATE = {"floor": 0.5, "margin": 0.5, "draws": 200}
"""A gate that lets a model of two epochs pass: what is tested is the way, not the model."""

KEY = "3c" * 32

TAG = "nights"
"""What tells these runs from others under the same Prefect."""

MARKS = {"modality": "OT", "window": "file", "size_px": 32}
HOSPITAL = PhantomSpec(patients=48, slices=1, size_px=64)


@dataclass(frozen=True)
class Nights:
    """What passed under one Prefect server, in this order."""

    settings: Settings
    hospital: Path
    day: PhantomDay
    first: NightlyReport
    quiet: NightlyReport
    larger: NightlyReport
    digits: NightlyReport
    findings: NightlyReport
    real: NightlyReport | None
    below: Reevaluation
    artifacts: dict[str, str]
    states: dict[str, set[str]]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.settings.tracking_uri)

    def facts(self, name: str, version: int) -> Mapping[str, str]:
        known = by_version(self.settings, name, version)
        assert known is not None
        return with_facts(self.settings, known).tags

    def run_of(self, night: NightlyReport) -> Run:
        return self.client.get_run(night.evaluation.candidate.run_id)


def night(source: Path, labels: Path | None, dataset: str, **changes: Any) -> NightlyReport:
    """Let a night pass over a source."""
    from flows.nightly import nightly

    values = {"source": str(source), "labels": labels and str(labels), "dataset": dataset, "gate": GATE}
    return nightly(NightlyRequest.model_validate(values | {"training": TRAINING} | changes))


def records() -> tuple[dict[str, str], dict[str, set[str]]]:
    """Return the text of each artifact, and the states of the nights' runs of each flow, as Prefect keeps them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    ours = FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG]))
    with get_client(sync_client=True) as client:
        artifacts = client.request("POST", "/artifacts/latest/filter", json={}).json()
        runs, flows = client.read_flow_runs(flow_run_filter=ours, limit=200), client.read_flows(limit=200)
    names = {flow.id: flow.name for flow in flows}
    states: dict[str, set[str]] = {}
    for run in runs:
        states.setdefault(names[run.flow_id], set()).add(str(run.state_name))
    return {item["key"]: item["data"] for item in artifacts}, states


@pytest.fixture(scope="module")
def nights(stack: Running, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Let nights pass, of which all but one train, and measure the champion again; only Prefect is the stack's."""
    from prefect import tags
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.reevaluate import reevaluate

    home = tmp_path_factory.mktemp("nights")
    archive = tmp_path_factory.mktemp("hospital")
    images, labels, day = write_hospital(archive, HOSPITAL)
    digits = write_digits(archive / "digits.npz")
    prefect = f"{stack.record.addresses['prefect']}/api"
    with fresh_environment(), temporary_settings({PREFECT_API_URL: prefect}), tags(TAG):
        os.environ["RADLOOP_HOME"] = str(home)
        # By the key patients get their sides: with some keys a model of two epochs fails on the few that are tested.
        os.environ["RADLOOP_KEY"] = KEY
        first, quiet = night(images, labels, "ct"), night(images, labels, "ct")
        larger = night(images, labels, "ct", preprocess={"size_px": 96}, training=ALONE | BY_STUDY)
        of_digits = night(digits, None, "digits", training=ALONE)
        pictures, table = write_findings(archive)
        marks = {"findings": "square,bar,dot", "preprocess": MARKS, "gate": GATE | {"measure": "auroc[dot]"}}
        of_findings = night(pictures, table, "marks", training=ALONE, **marks)
        folder = DATA / "ct-contrast"
        real = night(folder, folder / "labels.csv", "real", training=ALONE) if DATA.is_dir() else None
        below = reevaluate(ReevaluateRequest.model_validate({"dataset": "ct", "gate": GATE | {"floor": 1}}))
        return Nights(
            activate(), images, day, first, quiet, larger, of_digits, of_findings, real, below, *records()
        )


@pytest.fixture
def real(nights: Nights) -> NightlyReport:
    """Return the night over the larger real set."""
    image_sets()
    assert nights.real is not None
    return nights.real


@pytest.mark.slow
def test_every_file_of_a_hospital_is_counted(nights: Nights) -> None:
    ingested, day = nights.first.ingested, nights.day
    # Beside the phantom's own faults there is one image with the pixels of another.
    assert ingested.files_read == ingested.files_listed == day.files + 1
    assert ingested.quarantined == {**day.broken, "duplicate-pixels": 1}
    assert ingested.ignored == day.ignored
    assert (ingested.examples, ingested.patients) == (day.images, day.patients)


@pytest.mark.slow
def test_every_real_slice_is_counted(real: NightlyReport) -> None:
    ingested = real.ingested
    assert ingested.files_read == ingested.files_listed == 101
    assert ingested.quarantined == {"duplicate-instance": 5, "duplicate-pixels": 1}
    assert ingested.ignored == {"not-dicom": 1}
    assert (ingested.examples, ingested.patients) == (94, 54)


@pytest.mark.slow
def test_the_label_of_a_refused_image_is_reported(nights: Nights) -> None:
    ingested, day = nights.first.ingested, nights.day
    assert ingested.labels_without_image == day.labels_without_image + 1
    assert ingested.images_without_label == day.images_without_label


@pytest.mark.slow
def test_the_label_of_the_refused_real_image_is_reported(real: NightlyReport) -> None:
    assert (real.ingested.labels_without_image, real.ingested.images_without_label) == (1, 0)


@pytest.mark.slow
def test_no_patient_is_on_two_sides(nights: Nights) -> None:
    version = open_version(nights.settings.dataset_store, "ct", nights.first.ingested.digest)
    rows = (version.examples("train"), version.examples("val"), version.test_examples("test_nightly"))
    patients = [set(one.patient_keys) for one in rows]
    # The one image that has no label is all that there is of its patient.
    labelled = nights.day.patients - nights.day.images_without_label
    assert sum(map(len, patients)) == len(set().union(*patients)) == labelled


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ct", "digits", "marks"])
def test_each_set_ends_in_a_champion(nights: Nights, name: str) -> None:
    assert nights.client.get_model_version_by_alias(name, "champion").version


@pytest.mark.slow
def test_real_slices_end_in_a_champion(nights: Nights, real: NightlyReport) -> None:
    assert real.promotion.promoted
    assert nights.facts("real", real.evaluation.candidate.version)["gate.patients"] == "14"


@pytest.mark.slow
def test_the_verdict_is_on_the_version_with_its_numbers(nights: Nights) -> None:
    tags = nights.facts("ct", 1)
    patients = sum(label["patients"] for label in nights.first.ingested.counts["test"].values())
    assert (tags["gate.promote"], tags["gate.champion"]) == ("true", "none")
    assert tags["gate.patients"] == str(patients)
    assert tags["dataset.digest"] == nights.first.ingested.digest
    assert 0 <= float(tags["threshold"]) <= 1
    assert tags["gate.useless"] == "no"
    assert 0.5 < float(tags["validation.auroc"]) <= 1


@pytest.mark.slow
def test_findings_go_from_files_to_a_champion_that_a_consumer_loads(nights: Nights) -> None:
    version = open_version(nights.settings.dataset_store, "marks", nights.findings.ingested.digest)
    test = version.test_examples("test_nightly")
    assert version.findings == ("square", "bar", "dot")
    assert {-1, 0, 1} == set(np.unique(test.findings).tolist())
    verdict = nights.findings.evaluation.verdict
    known = test.patient_keys[test.findings[:, 2] >= 0]
    assert (verdict.measure, verdict.patients) == ("auroc[dot]", len(set(known)))
    mlflow.set_tracking_uri(nights.settings.tracking_uri)
    champion = mlflow.pyfunc.load_model("models:/marks@champion")
    levels = test.gather(np.arange(4))[:, None].astype(np.float32)
    probabilities = champion.predict({"image": levels})["probabilities"]
    assert np.allclose(probabilities, nights.findings.evaluation.predictions.probabilities[:4], atol=1e-5)  # type: ignore[attr-defined]
    metrics = nights.run_of(nights.findings).data.metrics
    assert metrics["test_auroc_lower.dot"] <= metrics["test_auroc.dot"]
    page = Path(nights.findings.report).read_text()
    assert "<h2>Findings</h2>" in page and "dot: absent" in page


@pytest.mark.slow
def test_every_decision_is_in_the_ledger(nights: Nights) -> None:
    lines = entries(ledger_path(nights.settings, "ct"))
    assert [line["candidate"] for line in lines] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ingest", "training", "evaluation", "nightly", "reevaluation"])
def test_every_flow_leaves_an_artifact(nights: Nights, key: str) -> None:
    assert "| " in nights.artifacts[key]


@pytest.mark.slow
def test_every_run_of_a_flow_is_completed(nights: Nights) -> None:
    names = ("ingest", "train", "evaluate", "nightly", "reevaluate")
    assert nights.states == {name: {"Completed"} for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("night", ["first", "quiet", "larger", "digits", "findings"])
def test_a_night_leaves_its_report_and_logs_it(nights: Nights, night: str) -> None:
    report = getattr(nights, night)
    run_id = report.evaluation.candidate.run_id
    assert Path(report.report).read_text().lower().startswith("<!doctype html>")
    logged = [item.path for item in nights.client.list_artifacts(run_id, "report")]
    assert f"report/{Path(report.report).name}" in logged


@pytest.mark.slow
def test_a_training_is_one_run(nights: Nights) -> None:
    client = nights.client
    experiment = client.get_experiment_by_name("ct")
    runs = client.search_runs([experiment.experiment_id], "params.network = 'small_cnn'")
    trained = {nights.run_of(night).info.run_id for night in (nights.first, nights.larger)}
    assert {run.info.run_id for run in runs} == trained
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["train_loss", "val_loss", "val_auroc"])
def test_a_run_has_a_metric_for_every_epoch(nights: Nights, metric: str) -> None:
    history = nights.client.get_metric_history(nights.run_of(nights.first).info.run_id, metric)
    assert sorted(item.step for item in history) == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_run_has_the_machines_numbers(nights: Nights) -> None:
    metrics = nights.run_of(nights.first).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= metrics.keys()


@pytest.mark.slow
def test_a_run_has_the_measures_with_their_limits(nights: Nights) -> None:
    metrics = nights.run_of(nights.first).data.metrics
    assert metrics["test_auroc_lower"] <= metrics["test_auroc"] <= metrics["test_auroc_upper"]


@pytest.mark.slow
def test_a_run_names_its_dataset(nights: Nights) -> None:
    (given,) = nights.run_of(nights.first).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("ct", nights.first.ingested.digest)


@pytest.mark.slow
def test_a_night_without_news_reads_nothing_and_trains_nothing(nights: Nights) -> None:
    quiet = nights.quiet
    assert (quiet.ingested.files_read, quiet.ingested.changed, quiet.trained.trained_now) == (0, False, False)
    assert quiet.evaluation.candidate.version == 1
    assert quiet.evaluation.already_champion
    assert (quiet.promotion.promoted, quiet.promotion.champion) == (False, 1)


@pytest.mark.slow
def test_a_night_without_news_makes_no_version(nights: Nights) -> None:
    assert len(nights.client.search_model_versions("name = 'ct'")) == 2


@pytest.mark.slow
def test_another_size_reads_everything_again_and_keeps_the_sides(nights: Nights) -> None:
    store, larger = nights.settings.dataset_store, nights.larger.ingested
    before = open_version(store, "ct", nights.first.ingested.digest)
    after = open_version(store, "ct", larger.digest)
    assert larger.files_read == larger.files_listed
    assert (after.spec.size_px, after.splits()) == (96, before.splits())


@pytest.mark.slow
def test_a_champion_of_another_preprocessing_meets_the_same_patients(nights: Nights) -> None:
    evaluation = nights.larger.evaluation
    assert evaluation.champion is not None
    assert evaluation.champion_predictions is not None
    assert evaluation.champion.tags["spec.digest"] != evaluation.candidate.tags["spec.digest"]
    assert np.array_equal(evaluation.champion_predictions.patients, evaluation.predictions.patients)
    assert np.array_equal(evaluation.champion_predictions.labels, evaluation.predictions.labels)
    assert evaluation.verdict.difference is not None


@pytest.mark.slow
def test_a_candidate_is_judged_by_its_own_units_beside_a_champion_of_images(nights: Nights) -> None:
    evaluation = nights.larger.evaluation
    assert evaluation.judged.startswith("Judged are ") and "by the rule attention" in evaluation.judged
    assert evaluation.judged in Path(nights.larger.report).read_text()
    facts = nights.facts("ct", evaluation.candidate.version)
    assert facts["aggregate"] == '{"over":"study","rule":"attention"}'
    assert 0 <= float(facts["validation.auroc"]) <= 1


@pytest.mark.slow
def test_an_npz_file_keeps_its_own_splits(nights: Nights) -> None:
    counts = nights.digits.ingested.counts
    sizes = {split: sum(part["examples"] for part in labels.values()) for split, labels in counts.items()}
    assert sizes == DIGIT_PARTS


@pytest.mark.slow
def test_a_champion_below_its_floor_is_reported(nights: Nights) -> None:
    assert not nights.below.reaches_floor
    assert "has fallen below the floor of 1.000" in nights.artifacts["reevaluation"]


@pytest.mark.slow
def test_the_page_of_a_version_has_ten_tags_and_its_story(nights: Nights) -> None:
    seen = nights.client.get_model_version("ct", str(nights.below.champion.version))
    assert len(seen.tags.keys() - {"aggregate"}) <= 10
    verdict, _, again = seen.description.partition("Measured again on ")
    assert verdict.startswith("Promoted: ")
    link = re.search(r"\(#/experiments/\d+/runs/(\w+)/artifacts/(report/[^)]+)\)", verdict)
    assert link is not None
    assert link[1] == seen.run_id
    assert link[2] in [file.path for file in nights.client.list_artifacts(link[1], "report")]
    assert "has fallen below the floor of 1.000" in again


@pytest.mark.slow
def test_nothing_of_a_night_names_a_patient_or_image(nights: Nights) -> None:
    files = [path for path in nights.hospital.rglob("*") if path.is_file()]
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True) for path in files if pydicom.misc.is_dicom(path)
    ]
    headers = [header for header in headers if "PatientID" in header]
    names = {str(value).encode() for header in headers for value in (header.PatientID, header.SOPInstanceUID)}
    assert len(names) == nights.day.patients + nights.day.images + 1
    not_in_home(nights, names)


@pytest.mark.slow
def test_nothing_of_a_night_names_a_real_patient_or_image(nights: Nights, data_dir: Path) -> None:
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True) for path in (data_dir / "ct-contrast").glob("*.dcm")
    ]
    names = {str(value).encode() for header in headers for value in (header.PatientID, header.SOPInstanceUID)}
    assert len(names) == 54 + 95
    not_in_home(nights, names)


def not_in_home(nights: Nights, names: set[bytes]) -> None:
    """Look for names in all that the nights have left, but for what is readable by its owner alone."""
    home = nights.settings.folder
    kept = [
        path for path in home.rglob("*") if path.is_file() and nights.settings.private not in path.parents
    ]
    assert len(kept) > 20
    for path in kept:
        data = path.read_bytes()
        assert not any(name in data for name in names), path.relative_to(home)


@pytest.mark.slow
def test_the_whole_of_pneumoniamnist_is_taken_in(
    data_dir: Path, settings: Settings, plain_flows: list[Any]
) -> None:
    from flows.ingest import ingest

    ingest(IngestRequest(source=str(data_dir / "pneumoniamnist.npz"), dataset="pneumonia"))
    version = newest_version(settings.dataset_store, "pneumonia")
    assert version is not None
    assert dict(Counter(version.table("examples")["split"].to_pylist())) == {
        "train": 4708,
        "val": 524,
        "test": 624,
    }
