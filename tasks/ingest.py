"""Steps of an ingest: list a source, read what is new, and publish a version of it."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from imaging.annotations.finding_table import FindingTables
from imaging.annotations.label_table import LabelTable
from imaging.cores import available_cores
from imaging.dataset.ingest.diff import IngestPlan
from imaging.dataset.ingest.ingest_outcome import (
    IngestOutcome,
    ingest_outcome,
    modality_remedy,
    other_modalities,
    write_problems,
)
from imaging.dataset.ingest.listing import Listing
from imaging.dataset.ingest.mask_reading import MaskInput, open_mask_pool, plan_masks, read_masks
from imaging.dataset.ingest.pending_files import (
    ATTEMPTS,
    ListedSource,
    PendingFiles,
    digest_of,
    find_pending,
    list_source,
)
from imaging.dataset.ingest.resolve_conflicts import resolve_conflicts
from imaging.dataset.tables.compaction import compact_shards
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.mask_rows import MaskAnnotations
from imaging.dataset.version.dataset_version import (
    DatasetVersion,
    EmptySplitError,
    check_trainable,
)
from imaging.dataset.version.publish import Recipe, build_version, publish
from imaging.errors import EnvironmentFault, UserFault
from imaging.formats.slide_source import SlideSource
from imaging.preprocess.spec import UNITS, PreprocessSpec
from imaging.quantities import quantity
from imaging.sandbox.pool import Pool
from imaging.sources.protocol import Source
from imaging.store.protocol import Damaged, Missing
from services.datasets import is_shadow
from services.flow_requests import IngestRequest
from services.input_checks import check_input
from services.label_tables import read_label_tables
from services.mask_input import patient_table, read_masks_of
from services.prefect.progress import log_of
from services.ray.chunk_pool import run_chunks
from services.ray.ingest_worker import FACTORY, FileItems, open_sandbox
from services.ray.jobs import run_step
from services.settings import Settings
from tasks.retry import INPUT_OUTPUT

OnProgress = Callable[[int, int], object]
"""Gets how many files of how many are done."""
RAY_FROM = 4096
"""Fewer files are done here sooner than Ray has started."""
PIECES_RAY_FROM = 256
"""A piece of a slide takes a second or more, and small slides have one."""
SLIDES_A_CHUNK = 2
"""A slide becomes thousands of tiles, and what is done is kept by chunks."""
REMEDIES = {
    "no-window": "these files have no window of their own that can be used: add --window auto or CENTER/WIDTH",
    "slide-resolution": "no slide says its resolution, or has a level for the one that is asked for: give a larger "
    "preprocess.slide_mpp",
    "no-volume": "these series make no volumes: take their slices with kind: slice",
}
"""Of reasons for which a whole source may be refused."""


@dataclass(frozen=True, kw_only=True)
class IngestJob(ListedSource):
    """Ingest with everything opened that its steps need.

    The processes of the `sandbox` are started before the listing; `read_new` ends them.
    """

    request: IngestRequest
    labels: LabelTable | FindingTables | None
    masks: MaskInput | None
    sandbox: Pool


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """Number of files that were read, and what was pending before."""

    files: int
    pending: PendingFiles


@task(name="list source", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def open_job(request: IngestRequest, settings: Settings) -> IngestJob:
    """Open the source and the table of labels or masks, and list the files."""
    source = check_input(request)
    spec = request.preprocess or source.default_spec()
    sandbox = open_sandbox(spec, available_cores())
    # They load what they need while the files are listed.
    sandbox.start()
    try:
        return _listed(request, settings, source, spec, sandbox)
    except BaseException:
        sandbox.end()
        raise


def _listed(
    request: IngestRequest, settings: Settings, source: Source, spec: PreprocessSpec, sandbox: Pool
) -> IngestJob:
    pseudonyms = replace(settings.pseudonyms(), patient_variants=request.patient_variants)
    labels = read_label_tables(request, pseudonyms, volumes=spec.kind == "volume")
    listed = list_source(source, spec, pseudonyms, settings.dataset_store, request.dataset, request.bad_slice)
    masks = read_masks_of(request, pseudonyms, (file.name for file in listed.listing), settings.folder)
    return IngestJob(request=request, labels=labels, masks=masks, sandbox=sandbox, **vars(listed))


@task(name="read what is new", cache_policy=NO_CACHE, **INPUT_OUTPUT)
def read_new(job: IngestJob, settings: Settings, flow_run_id: str, on_progress: OnProgress) -> ReadResult:
    """Prepare the files that are new, chunk by chunk into the journal; done again it goes on where it stopped.

    On a cluster it is done by a job there, whose lines say how far it is.
    """
    with job.sandbox:
        pending = find_pending(job)
        # Else they would stay as long as no night publishes. Another run whose listing is older reads them once more.
        job.journal.drop(pending.superseded)
        files = pending.plan.to_read
        if settings.ray_address and _is_much(job, files):
            job.sandbox.end()
            _read_on_cluster(job.request, settings, flow_run_id)
        else:
            read_here(job, files, settings, on_progress)
    return ReadResult(files=len(files), pending=pending)


def read_here(job: IngestJob, files: Listing, settings: Settings, on_progress: OnProgress) -> None:
    """Prepare files on this machine, or on the cluster that this process belongs to."""
    on_progress(0, len(files))
    for done in _chunks(job, files, settings):
        on_progress(done, len(files))


def _is_much(job: IngestJob, files: Listing) -> bool:
    """Return whether files are worth the start of Ray; of slides, the pieces count."""
    if isinstance(job.source, SlideSource):
        return sum(len(job.source.members[file.name]) for file in files) > PIECES_RAY_FROM
    return len(files) > RAY_FROM


def _read_on_cluster(request: IngestRequest, settings: Settings, flow_run_id: str) -> None:
    """Read as a job of the cluster at RADLOOP_RAY_ADDRESS, whose nodes see home, source and store."""
    # Private, since the name of the source may tell of a patient.
    folder = settings.private / "ingest" / flow_run_id
    try:
        run_step("ingest", request.model_dump_json(), folder, flow_run_id, settings, log_of(request.dataset))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _chunks(job: IngestJob, files: Listing, settings: Settings) -> Iterator[int]:
    order = {
        "home": str(settings.folder),
        "store": settings.store,
        **job.request.model_dump(mode="json", include={"source", "dataset", "patient_variants"}),
        # Of pictures and NIfTI it names the patients.
        "labels": str(table) if (table := patient_table(job.request)) else None,
        "spec": job.spec.model_dump_json(),
        "bad_slice": job.bad_slice,
        "made_with": job.journal.made_with,
        "key_fingerprint": job.pseudonyms.fingerprint,
    }
    is_much = _is_much(job, files)
    if is_much:
        # Each worker of Ray has its own.
        job.sandbox.end()
    done, here = 0, {"sandbox": job.sandbox}
    few = {} if job.spec.slide_mpp is None else {"chunk_items": SLIDES_A_CHUNK}
    items = FileItems(files, job.source)
    for chunk, _ in run_chunks(
        FACTORY, order, items, **few, ray_from=0 if is_much else len(files), here=here
    ):
        done += len(chunk)
        yield done


@task(name="publish version", cache_policy=NO_CACHE)
def publish_version(job: IngestJob, read: ReadResult, settings: Settings) -> IngestOutcome:
    """Make what stands and what is new into one version, and move the dataset's pointer to it."""
    pending = read.pending
    for _ in range(ATTEMPTS):
        pending = find_pending(job, pending)
        for _ in _chunks(job, pending.plan.to_read, settings):
            pass
        if pending.plan.to_read:
            continue
        try:
            version, scan, untrainable = _build(job, pending.previous, pending.plan, settings)
        except (Missing, Damaged):
            # Another run may have put what was finished into a version, and dropped it while it was being read.
            if find_pending(job, pending) is pending:
                raise
            continue
        # Before the pointer moves: where there is no room for it, nothing has been published.
        problems = write_problems(job.listing, version, settings.private, job.labels)
        expected = digest_of(pending.previous)
        if publish(version, expected):
            job.journal.drop(pending.chunks)
            return ingest_outcome(
                version,
                scan,
                read.files,
                problems,
                changed=expected != version.digest,
                labels=job.labels,
                positive=job.request.positive,
                untrainable=untrainable,
            )
    raise EnvironmentFault(
        f"dataset {job.request.dataset!r} was changed by other runs {ATTEMPTS} times meanwhile: what was read is kept, "
        "run again"
    )


def _build(
    job: IngestJob, previous: DatasetVersion | None, scan: IngestPlan, settings: Settings
) -> tuple[DatasetVersion, IngestPlan, str]:
    """Return the version, what it was made from, and why nothing can be trained on it, if so."""
    fixed_splits = pc.any(pc.is_valid(scan.examples.select(["source_split"])["source_split"])).as_py()
    resolved = resolve_conflicts(scan, drop_equal_pixels=not fixed_splits, drops_studies=job.drops_studies)
    if not resolved.examples.num_rows:
        raise UserFault(_no_examples(job.request.source, resolved, job.spec))
    recipe = Recipe(
        dataset=job.request.dataset,
        spec=job.spec,
        key_fingerprint=job.pseudonyms.fingerprint,
        shares=job.request.splits.shares,
        labels=None if isinstance(job.labels, FindingTables) else job.labels,
        findings=job.labels if isinstance(job.labels, FindingTables) else None,
        positive=job.request.positive,
        patient_variants=job.pseudonyms.patient_variants,
        masks=_masks(job, resolved.examples, previous) if job.masks else None,
    )
    splits = previous.table("splits") if previous else None
    store = job.journal.store
    examples = resolved.examples.with_columns(
        compact_shards(store, resolved.examples.select(["shard", "row"]), job.spec.shape)
    )
    version = build_version(store, recipe, examples, resolved.refusals, splits, resolved.tombstones)
    untrainable = ""
    if not is_shadow(job.request.dataset):
        # Before the pointer moves: splits drawn over a wrong label column would stay for ever.
        try:
            _check_trainable(job, version, settings)
        except EmptySplitError as fault:
            # Patients who left: a version that cannot be trained on must not keep what was removed.
            if previous is None:
                raise
            untrainable = f"{fault}. The version is published; training waits for them."
    return version, resolved, untrainable


def _masks(job: IngestJob, examples: LazyRows, previous: DatasetVersion | None) -> MaskAnnotations | None:
    """Read the masks that are new or changed; they are joined with the examples as labels are, once a version."""
    assert job.masks is not None
    plan = plan_masks(job.masks, examples, job.spec, previous)
    job.masks.known.save()
    if plan.to_read:
        print(f"Reading {quantity(len(plan.to_read), 'masks')} of {job.request.dataset}")
    with open_mask_pool(job.masks, job.spec, available_cores()) as pool:
        return read_masks(job.masks, plan, job.spec, job.journal.store, pool.map)


def _check_trainable(job: IngestJob, version: DatasetVersion, settings: Settings) -> None:
    """Raise UserFault as `check_trainable`, with what became of the labels, and write the list of what did not fit."""
    try:
        check_trainable(version)
    except UserFault as fault:
        problems = write_problems(job.listing, version, settings.private, job.labels)
        report = version.head.label_report
        numbers = {
            f"{'masks' if job.masks else 'labels'} name no image": len(report.lines_without_image),
            "labels are of an image of another patient, study or series": len(version.head.lines_of_others),
            "labels contradict another line": len(report.lines_in_conflict),
            "lines of the table have more or fewer columns than its first": job.labels.uneven[0]
            if job.labels
            else 0,
        }
        listed = ", ".join(f"{what}: {count:,}" for what, count in numbers.items() if count)
        if not (version.classes or version.findings or version.mask_classes) and report.lines_without_image:
            listed += " (where spreadsheets took leading zeros: --patient-variants join, into a new dataset)"
        raise type(fault)(
            f"{fault}{f'; {listed}' if listed else ''}{f'; {problems} lists them' if problems else ''}"
        ) from None


def _no_examples(source: str, scan: IngestPlan, spec: PreprocessSpec) -> str:
    counts = Counter(scan.refusals["reason"].to_pylist()).most_common()
    listed = ", ".join(f"{count} x {reason}" for reason, count in counts)
    others = other_modalities(scan.refusals)
    remedy = REMEDIES.get(counts[0][0] if counts else "", "is it the right folder?")
    remedy = modality_remedy(others, spec.modality) if others else remedy
    unit, taken = UNITS[spec.kind]
    number = quantity(scan.refusals.num_rows, unit)
    return f"there is no usable {taken.removesuffix('s')} in the {number} of {source} ({listed}): {remedy}"
