"""Report of a night: gather the data of the page, write it, and log it under the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.ingest.ingest_outcome import IngestOutcome
from imaging.dataset.version.dataset_version import DatasetVersion, open_version
from imaging.dataset.version.summary import count_by
from imaging.refusal_reasons import IGNORED, REASONS
from services.mlflow.runs import commit, reachable
from services.settings import Settings
from tasks.evaluation import Evaluation, surest
from tasks.promotion import Promotion
from tasks.report.page import LabelTrouble, ReasonCount, ReportData, SplitCount, Thumbnail, render
from tasks.training import TrainOutcome

EXAMPLES = 6
LISTED = 1000
"""Of the images without label, so many are named."""
PACKAGES = ("radloop", "torch", "ray", "mlflow", "prefect", "onnxruntime", "pydicom")


@dataclass(frozen=True, kw_only=True)
class Night:
    """Results of the stages of a night."""

    ingested: IngestOutcome
    trained: TrainOutcome
    evaluation: Evaluation
    promotion: Promotion
    timings_s: dict[str, float]

    @property
    def all_timings(self) -> dict[str, float]:
        """The seconds of each stage, those of the training's own stages after them."""
        inner = {f"train: {stage}": seconds for stage, seconds in self.trained.timings_s.items()}
        return {**self.timings_s, **inner}


@dataclass(frozen=True, kw_only=True)
class NightlyReport(Night):
    """A night with the place of its report."""

    report: str


@task(name="report", cache_policy=NO_CACHE)
def publish_report(night: Night, settings: Settings) -> str:
    """Write the page of a night, log it under the candidate's run, and return where it lies."""
    page = render(report_data(night, settings))
    candidate = night.evaluation.candidate
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{candidate.name}-v{candidate.version}.html"
    settings.folder_store.write(f"reports/{name}", page.encode())
    path = settings.folder_store.path(f"reports/{name}")
    with reachable(settings) as client:
        client.log_artifact(candidate.run_id, str(path), "report")
    return str(path)


def report_data(night: Night, settings: Settings) -> ReportData:
    """Gather the data of the page; it holds pseudonyms at most."""
    evaluation, ingested = night.evaluation, night.ingested
    version = open_version(settings.dataset_store, ingested.dataset, ingested.digest)
    return ReportData(
        title=f"{ingested.dataset}, version {evaluation.candidate.version}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=evaluation.verdict,
        candidate=evaluation.predictions,
        champion=evaluation.champion_predictions,
        measures=evaluation.measures,
        champion_measures=evaluation.champion_measures,
        history=night.trained.history,
        best_epoch=night.trained.best_epoch,
        counts=[
            SplitCount(split=split, label=label, patients=numbers["patients"], examples=numbers["examples"])
            for split in ("train", "val", "test")
            for label, numbers in ingested.counts.get(split, {}).items()
        ],
        groups=count_by(version, ("modality", "site_key")),
        quarantine=_reasons(ingested.quarantined, REASONS),
        ignored=_reasons(ingested.ignored, IGNORED),
        label_troubles=_troubles(version),
        thumbnails=_thumbnails(evaluation, version),
        timings=night.all_timings,
        provenance=_provenance(night, version),
    )


def _reasons(counts: Mapping[str, int], meanings: Mapping[str, str]) -> list[ReasonCount]:
    return [ReasonCount(reason=name, count=count, meaning=meanings[name]) for name, count in counts.items()]


def _troubles(version: DatasetVersion) -> list[LabelTrouble]:
    report = version.head.label_report
    lines = tuple(f"line {number}" for number in report.lines_without_image)
    disputed = tuple(f"line {number}" for number in report.lines_in_conflict)
    troubles = [
        LabelTrouble(what="labels that name no image", count=len(lines), lines=lines),
        LabelTrouble(what="labels that contradict each other", count=len(disputed), lines=disputed),
        *(
            LabelTrouble(what=what, count=len(keys), keys=tuple(keys[:LISTED].to_pylist()))
            for what, keys in (
                ("images with two different labels", _unlabelled(version, "two-labels")),
                ("images with no label", _unlabelled(version, "no-label")),
            )
        ),
    ]
    return [trouble for trouble in troubles if trouble.count]


def _unlabelled(version: DatasetVersion, fault: str) -> pa.ChunkedArray:
    labelled = version.table("examples", ["object_key", "label_fault"])
    return labelled.filter(pc.equal(labelled["label_fault"], fault))["object_key"]


def _thumbnails(evaluation: Evaluation, version: DatasetVersion) -> list[Thumbnail]:
    predictions = evaluation.predictions
    chosen = np.concatenate(surest(predictions, EXAMPLES))
    images = version.examples_of(evaluation.test_keys[chosen]).gather(np.arange(len(chosen)))
    return [
        Thumbnail(
            image=middle_plane(image),
            label=predictions.classes[predictions.labels[position]],
            predicted=predictions.classes[predictions.predicted[position]],
            probability=float(predictions.probabilities[position, predictions.predicted[position]]),
        )
        for image, position in zip(images, chosen, strict=True)
    ]


def middle_plane(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image as it is, and of a volume its middle slice."""
    return image if image.ndim == 2 else image[len(image) // 2]


def _provenance(night: Night, version: DatasetVersion) -> dict[str, str]:
    candidate, champion = night.evaluation.candidate, night.evaluation.champion
    return {
        "dataset version": version.digest,
        "preprocessing": version.spec.digest,
        "input of the model": version.spec.input_units,
        "training": candidate.tags["training.key"],
        "candidate": f"{candidate.uri}, MLflow run {candidate.run_id}",
        "champion before": champion.uri if champion else "none",
        "champion now": f"version {night.promotion.champion}" if night.promotion.champion else "none",
        "git commit": candidate.tags["git.commit"],
        "report made at commit": commit(),
        **{package: installed(package) for package in PACKAGES},
    }
