"""Files of a source that no version and no finished chunk holds yet."""

from collections.abc import Sequence
from dataclasses import dataclass

from imaging.dataset.ingest.diff import IngestPlan, current_rows, plan_ingest, with_finished_chunks
from imaging.dataset.ingest.journal import Journal
from imaging.dataset.ingest.listing import Listing, list_files
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.formats.peek import FUNCTION as PEEK
from imaging.formats.series import DROP_SLICE, DROP_STUDY
from imaging.formats.series_source import SeriesSource
from imaging.formats.slide_source import SlideSource
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Pool
from imaging.sources.protocol import Source
from imaging.store.protocol import Damaged, Missing, Store

ATTEMPTS = 8
"""How often pending files are looked for, or a version made, anew since another run has published one meanwhile."""


@dataclass(frozen=True, kw_only=True)
class ListedSource:
    """A source with its files, and how they are prepared; `base` is the dataset's version before the listing."""

    source: Source
    spec: PreprocessSpec
    pseudonyms: Pseudonyms
    journal: Journal
    base: DatasetVersion | None
    listing: Listing
    bad_slice: str

    @property
    def drops_studies(self) -> bool:
        """Whether a bad slice costs its study."""
        return self.bad_slice == DROP_STUDY


def list_source(
    source: Source,
    spec: PreprocessSpec,
    pseudonyms: Pseudonyms,
    store: Store,
    dataset: str,
    bad_slice: str | None,
) -> ListedSource:
    """List the files of a source; of volumes, the headers are read too. None for `bad_slice` is the kind's default."""
    bad_slice = bad_slice or (DROP_STUDY if spec.kind == "volume" else DROP_SLICE)
    if spec.kind == "volume":
        source = SeriesSource(source, Pool(PEEK, {}), bad_slice)
    elif spec.slide_mpp is not None:
        source = SlideSource(source, Pool(PEEK, {"slides": True}), spec)
    made_with = f"{pseudonyms.fingerprint} {pseudonyms.patient_variants} {bad_slice} {spec.digest}"
    # Before the listing: what is in a newer version and not listed has come since, and is not gone.
    base = newest_version(store, dataset)
    return ListedSource(
        source=source,
        spec=spec,
        pseudonyms=pseudonyms,
        journal=Journal(store, dataset, made_with),
        base=base,
        listing=list_files(source.scan(), pseudonyms),
        bad_slice=bad_slice,
    )


@dataclass(frozen=True, kw_only=True)
class PendingFiles:
    """What must be read beside a version and the finished chunks.

    `version_plan` is the plan beside the version alone, `plan` the one beside version and chunks. Chunks are
    `superseded` where none of their rows is of use: their files are changed, gone, or in the version.
    """

    previous: DatasetVersion | None
    version_plan: IngestPlan
    chunks: Sequence[str]
    superseded: Sequence[str]
    plan: IngestPlan


def find_pending(listed: ListedSource, before: PendingFiles | None = None) -> PendingFiles:
    """Return what must be read beside the newest version and the finished chunks; `before` was pending earlier."""
    for attempt in range(1, ATTEMPTS + 1):
        # The chunks before the version: those that are gone meanwhile are in it.
        chunks = listed.journal.chunks()
        previous = newest_version(listed.journal.store, listed.journal.dataset)
        try:
            return _pending(listed, previous, chunks, before)
        except (Missing, Damaged):
            # Another run may have put them into a version and dropped them while they were being read.
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


def _pending(
    listed: ListedSource,
    previous: DatasetVersion | None,
    chunks: Sequence[str],
    before: PendingFiles | None,
) -> PendingFiles:
    # Mostly nobody has published meanwhile, and the plan beside the version need not be made again.
    same = before if before and digest_of(before.previous) == digest_of(previous) else None
    if same and same.chunks == chunks:
        return same
    version_plan = (
        same.version_plan
        if same
        else plan_ingest(
            listed.listing,
            previous,
            listed.spec.digest,
            listed.pseudonyms,
            base=listed.base,
            drops_studies=listed.drops_studies,
        )
    )
    finished, used = current_rows(listed.journal.read(chunks), version_plan.to_read, listed.spec.digest)
    return PendingFiles(
        previous=previous,
        version_plan=version_plan,
        chunks=chunks,
        superseded=[chunk for chunk, of_use in zip(chunks, used, strict=True) if not of_use],
        plan=with_finished_chunks(version_plan, finished),
    )


def digest_of(version: DatasetVersion | None) -> str | None:
    """Return the name of a version, None where there is none yet."""
    return version.digest if version else None
