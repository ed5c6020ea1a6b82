"""Report of a night: gather the data of the page, write it, and log it under the run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as installed
from typing import Any, cast

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
from models.objectives.protocol import MaskedExamples
from models.portable.predictor import Predictor
from services.mlflow.registry import artifact_link, describe, model_file
from services.mlflow.runs import commit, reachable
from services.settings import Settings
from tasks.evaluation import Evaluation
from tasks.promotion import Promotion
from tasks.report.class_sections import class_curves, surest_calls
from tasks.report.finding_sections import finding_calls, finding_curves, finding_measures
from tasks.report.ingest_summary import LINES_OF_OTHERS
from tasks.report.outcomes import version_markdown
from tasks.report.page import (
    ExampleViews,
    LabelTrouble,
    ReasonCount,
    ReportData,
    Section,
    SplitCount,
    render,
)
from tasks.report.segmentation_sections import segmentation_classes, worst_masks
from tasks.training import TrainOutcome

SECTIONS: dict[str, Callable[[Any, Any, ExampleViews], Section]] = {
    "class-curves": class_curves,
    "surest-calls": surest_calls,
    "finding-measures": finding_measures,
    "finding-curves": finding_curves,
    "finding-calls": finding_calls,
    "segmentation-classes": segmentation_classes,
    "worst-masks": worst_masks,
}
"""By the names that objectives give: from the predictions of candidate and champion, and views of the examples."""
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
    if not night.evaluation.already_champion:
        link = artifact_link(settings, candidate.run_id, f"report/{name}")
        describe(settings, candidate, version_markdown(night.evaluation, link))
    return str(path)


def report_data(night: Night, settings: Settings) -> ReportData:
    """Gather the data of the page; it holds pseudonyms at most."""
    evaluation, ingested = night.evaluation, night.ingested
    version = open_version(settings.dataset_store, ingested.dataset, ingested.digest)
    return ReportData(
        title=f"{ingested.dataset}, version {evaluation.candidate.version}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=evaluation.verdict,
        measures={
            name: measure
            for name, measure in evaluation.measures.items()
            if name not in evaluation.predictions.repeated
        },
        champion_measures=evaluation.champion_measures,
        lower_is_better=[
            measure.title
            for name, measure in evaluation.predictions.measures.items()
            # Of a measure and of its parts, as in "hd95[heart]", the same is true.
            if not measure.higher_is_better and "[" not in name
        ],
        units=evaluation.units,
        judged=evaluation.judged,
        sections=_sections(evaluation, version, settings),
        history=night.trained.history,
        titles=evaluation.candidate.objective.epoch_titles,
        best_epoch=night.trained.best_epoch,
        counts=_split_counts(ingested),
        groups=count_by(version, ("modality", "site_key")),
        quarantine=_reasons(ingested.quarantined, REASONS),
        ignored=_reasons(ingested.ignored, IGNORED),
        label_troubles=_troubles(version),
        timings=night.all_timings,
        provenance=_provenance(night, version),
    )


def _split_counts(ingested: IngestOutcome) -> list[SplitCount]:
    """Return the counts of each class, or of the images in which each finding is present and absent."""
    counted = [
        (split, label, numbers["patients"], numbers["examples"])
        for split, labels in ingested.counts.items()
        for label, numbers in labels.items()
        if label
    ]
    counted += [
        (split, f"{name}: {side}", numbers[f"patients_{side}"], numbers[side])
        for split, names in ingested.finding_counts.items()
        for name, numbers in names.items()
        for side in ("present", "absent")
    ]
    order = ("train", "val", "test")
    return [
        SplitCount(split=split, label=label, patients=patients, examples=examples)
        for split, label, patients, examples in sorted(counted, key=lambda one: order.index(one[0]))
    ]


def _reasons(counts: Mapping[str, int], meanings: Mapping[str, str]) -> list[ReasonCount]:
    return [ReasonCount(reason=name, count=count, meaning=meanings[name]) for name, count in counts.items()]


def _troubles(version: DatasetVersion) -> list[LabelTrouble]:
    if version.mask_classes:
        return _mask_troubles(version)
    report = version.head.label_report
    lines = tuple(f"line {number}" for number in report.lines_without_image)
    disputed = tuple(f"line {number}" for number in report.lines_in_conflict)
    of_others = tuple(f"line {number}" for number in version.head.lines_of_others)
    troubles = [
        LabelTrouble(what="labels that name no image", count=len(lines), lines=lines),
        LabelTrouble(what="labels that contradict each other", count=len(disputed), lines=disputed),
        LabelTrouble(what=LINES_OF_OTHERS, count=len(of_others), lines=of_others),
        *(
            LabelTrouble(what=what, count=len(keys), keys=tuple(keys[:LISTED].to_pylist()))
            for what, keys in (
                ("images with two different labels", _unlabelled(version, "two-labels")),
                ("images with no label", _unlabelled(version, "no-label")),
            )
        ),
    ]
    return [trouble for trouble in troubles if trouble.count]


def _mask_troubles(version: DatasetVersion) -> list[LabelTrouble]:
    lines = tuple(f"line {number}" for number in version.head.label_report.lines_without_image)
    faults = version.table("examples", ["label_fault"])["label_fault"].drop_null()
    troubles = (
        [LabelTrouble(what="lines of masks that name no image", count=len(lines), lines=lines)]
        if lines
        else []
    )
    for fault in sorted(pc.unique(faults).to_pylist()):
        keys = _unlabelled(version, fault)
        shown = tuple(keys[:LISTED].to_pylist())
        troubles.append(
            LabelTrouble(what=f"images without a mask: {REASONS[fault]}", count=len(keys), keys=shown)
        )
    return troubles


def _unlabelled(version: DatasetVersion, fault: str) -> pa.ChunkedArray:
    labelled = version.table("examples", ["object_key", "label_fault"])
    return labelled.filter(pc.equal(labelled["label_fault"], fault))["object_key"]


def _sections(evaluation: Evaluation, version: DatasetVersion, settings: Settings) -> list[Section]:
    model = evaluation.candidate
    predictor = cache(lambda: Predictor.load(model_file(settings, model)))

    def stored(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return version.examples_of(evaluation.test_keys[positions]).gather(np.arange(len(positions)))

    def outputs(positions: NDArray[np.int64]) -> Mapping[str, NDArray[np.float32]]:
        return predictor().predict_levels(stored(positions))

    def masks(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        examples = version.examples_of(evaluation.test_keys[positions])
        return cast(MaskedExamples, examples).masks(np.arange(len(positions)))

    def images(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return middle_planes(stored(positions))

    views = ExampleViews(
        images=images, outputs=outputs, stored=stored, masks=masks, unit=model.objective.aggregation.over
    )
    return [
        SECTIONS[name](evaluation.predictions, evaluation.champion_predictions, views)
        for name in model.objective.report_sections
    ]


def middle_planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (k, height, width) as they are, and of volumes their middle slices."""
    return images if images.ndim == 3 else images[:, images.shape[1] // 2]


def _provenance(night: Night, version: DatasetVersion) -> dict[str, str]:
    candidate, champion = night.evaluation.candidate, night.evaluation.champion
    return {
        "dataset version": version.digest,
        "preprocessing": f"{version.spec.digest}: {version.spec.modality}, window {version.spec.window_text}",
        "input of the model": version.spec.input_units,
        "training": candidate.tags["training.key"],
        "candidate": f"{candidate.uri}, MLflow run {candidate.run_id}",
        "champion before": champion.uri if champion else "none",
        "champion now": f"version {night.promotion.champion}" if night.promotion.champion else "none",
        "git commit": candidate.tags["git.commit"],
        "report made at commit": commit(),
        **{package: installed(package) for package in PACKAGES},
    }
