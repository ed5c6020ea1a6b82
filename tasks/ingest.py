"""Owns the steps of ingest: list a source, prepare chunks, publish a version, and tell the person what did not fit."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.dataset.chunk import ChunkResult, Refusal, prepare_chunk
from imaging.dataset.draft import FUNCTION as DRAFT
from imaging.dataset.manifest import drop_studies, merge
from imaging.dataset.publish import Recipe, build_version, publish
from imaging.dataset.quarantine import IGNORED
from imaging.dataset.scan import ScanPlan, plan
from imaging.dataset.trainable import check_trainable
from imaging.dataset.variants import own_and_shared, patient_variants
from imaging.dataset.version import DatasetVersion, newest_version, reasons
from imaging.deidentify.pseudonyms import Pseudonyms, VariantPolicy
from imaging.errors import UserFault
from imaging.formats.glance import FUNCTION as GLANCE
from imaging.formats.series import DROP_SLICE, DROP_STUDY
from imaging.labels import LabelTable, read_labels
from imaging.preprocess import PreprocessSpec
from imaging.sandbox.pool import Pool
from imaging.sources.protocol import Source, SourceFile
from imaging.sources.series import SeriesSource
from imaging.store.folder import FolderStore
from tasks.preflight import check_input
from tasks.requests import IngestRequest, is_shadow
from tasks.retry import INPUT_OUTPUT
from tasks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class IngestJob:
    """An ingest with everything opened: what each step of it needs."""

    dataset: str
    source: Source
    spec: PreprocessSpec
    pseudonyms: Pseudonyms
    labels: LabelTable | None
    previous: DatasetVersion | None
    files: tuple[SourceFile, ...]
    plan: ScanPlan
    bad_slice: str

    def workers(self) -> Pool:
        """Return the processes in which files are read: what a bad file does to one costs that file alone."""
        return Pool(DRAFT, {"spec": self.spec.model_dump_json()})


@dataclass(frozen=True, kw_only=True)
class IngestOutcome:
    """What an ingest did, in numbers; it holds no identifier."""

    dataset: str
    digest: str
    changed: bool
    files_listed: int
    files_read: int
    files_removed: int
    examples: int
    patients: int
    counts: dict[str, dict[str, dict[str, int]]]
    quarantined: dict[str, int]
    ignored: dict[str, int]
    labels_without_image: int
    images_without_label: int
    images_in_conflict: int
    problems_file: str | None
    patient_variants: int = 0
    variant_policy: VariantPolicy = "report"


@task(name="list source", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def open_job(request: IngestRequest, settings: Settings) -> IngestJob:
    """Open the source and the label table, list the files, and decide which are new."""
    source = check_input(request)
    spec = request.preprocess or source.default_spec()
    pseudonyms = replace(settings.pseudonyms(), patient_variants=request.patient_variants)
    labels = _labels(request, pseudonyms)
    bad_slice = request.bad_slice or (DROP_STUDY if spec.kind == "volume" else DROP_SLICE)
    if spec.kind == "volume":
        source = SeriesSource(source, Pool(GLANCE, {}), bad_slice)
    files = tuple(source.scan())
    previous = newest_version(settings.store_root, request.dataset)
    return IngestJob(
        dataset=request.dataset,
        source=source,
        spec=spec,
        pseudonyms=pseudonyms,
        labels=labels,
        previous=previous,
        files=files,
        plan=plan(files, previous, spec, pseudonyms),
        bad_slice=bad_slice,
    )


@task(name="prepare chunk", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def ingest_chunk(
    job: IngestJob, files: Sequence[SourceFile], store: FolderStore, workers: Pool
) -> ChunkResult:
    """Prepare one chunk of files; running it twice writes the same bytes."""
    return prepare_chunk(job.source, files, job.spec, job.pseudonyms, store, workers.map)


@task(name="publish version", cache_policy=NO_CACHE)
def publish_version(
    job: IngestJob, request: IngestRequest, results: Sequence[ChunkResult], settings: Settings
) -> IngestOutcome:
    """Make what stands and what is new into one version, and move the dataset's pointer to it."""
    new = [example for result in results for example in result.examples]
    refused = [refusal for result in results for refusal in result.refusals]
    fixed_splits = any(example.source_split for example in (*job.plan.examples, *new))
    standing, refusals = [*job.plan.examples, *new], [*job.plan.refusals, *refused]
    if job.bad_slice == DROP_STUDY:
        # Before equal pixels are dropped: what goes with its study must not take the place of what stays.
        standing, lost = drop_studies(standing, refusals)
        refusals += lost
    examples, repeats = merge(standing, (), drop_equal_pixels=not fixed_splits)
    refusals += repeats
    if not examples:
        raise UserFault(_no_examples(request.source, refusals))
    recipe = Recipe(
        dataset=job.dataset,
        spec=job.spec,
        key_fingerprint=job.pseudonyms.fingerprint,
        shares=request.splits.shares,
        labels=job.labels,
        positive=request.positive,
        patient_variants=job.pseudonyms.patient_variants,
    )
    splits = job.previous.splits() if job.previous else {}
    version = build_version(settings.folder_store, recipe, examples, refusals, splits)
    if not is_shadow(job.dataset):
        # Before the pointer moves: splits drawn over a wrong label column would stay for ever.
        check_trainable(version)
    changed = publish(version, job.previous.digest if job.previous else None)
    problems = write_problems(job, version, settings.private)
    return _outcome(job, version, changed, problems)


def _labels(request: IngestRequest, pseudonyms: Pseudonyms) -> LabelTable | None:
    if not request.labels:
        return None
    return read_labels(Path(request.labels).expanduser(), pseudonyms, request.label_column)


def _no_examples(source: str, refusals: Sequence[Refusal]) -> str:
    counts = Counter(refusal.reason for refusal in refusals)
    listed = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common())
    return (
        f"none of the {len(refusals)} files of {source} is a usable image ({listed}): is it the right folder?"
    )


def write_problems(job: IngestJob, version: DatasetVersion, folder: Path) -> Path | None:
    """Write the list with original file names and label lines, for the eyes of those who may see them."""
    names = {job.pseudonyms.key("file", file.name): file.name for file in job.files}
    report = version.head.label_report
    without, disputed = set(report.images_without_label), set(report.images_in_conflict)
    rows = [("file", names.get(r.source_key, "?"), r.reason, r.detail) for r in version.refusals()]
    for example in version.examples():
        if example.object_key in without | disputed:
            reason = "no-label" if example.object_key in without else "two-labels"
            rows.append(("image", names.get(example.source_key, "?"), reason, ""))
    rows += _variant_rows(version, names)
    rows += [("label line", str(line), "names-no-image", "") for line in report.lines_without_image]
    rows += [("label line", str(line), "two-labels", "") for line in report.lines_in_conflict]
    if not rows:
        return None
    # There is none yet where the key is a secret of the environment.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"problems-{job.dataset}.csv"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("what", "where", "reason", "detail"), *rows])
    return path


def _variant_rows(version: DatasetVersion, names: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a file of each PatientID that has variants; the detail says which belong together."""
    unseen = dict(patient_variants(version))
    for example in version.examples() if unseen else ():
        own, shared = own_and_shared(version, example.patient_key, example.patient_variant)
        if unseen.pop(own, None):
            yield "patient", names.get(example.source_key, "?"), "patient-variant", f"patient {shared[:12]}"


def _outcome(job: IngestJob, version: DatasetVersion, changed: bool, problems: Path | None) -> IngestOutcome:
    counted = reasons(version)
    report = version.head.label_report
    return IngestOutcome(
        dataset=job.dataset,
        digest=version.digest,
        changed=changed,
        files_listed=job.plan.listed,
        files_read=len(job.plan.to_read),
        files_removed=job.plan.removed,
        examples=version.manifest.num_rows,
        patients=len(set(version.manifest["patient_key"].to_pylist())),
        counts=version.counts(),
        quarantined={reason: count for reason, count in counted.items() if reason not in IGNORED},
        ignored={reason: count for reason, count in counted.items() if reason in IGNORED},
        labels_without_image=len(report.lines_without_image),
        images_without_label=len(report.images_without_label),
        images_in_conflict=len(report.images_in_conflict),
        problems_file=str(problems) if problems else None,
        patient_variants=len(patient_variants(version)),
        variant_policy=version.head.patient_variants,
    )
