"""Owns what is new in a source: an opened ingest, held against the newest version and the chunks that are finished."""

from collections.abc import Sequence
from dataclasses import dataclass

from imaging.annotations.label_table import LabelTable
from imaging.dataset.ingest.diff import IngestPlan, plan_ingest, with_finished_chunks
from imaging.dataset.ingest.journal import Journal
from imaging.dataset.ingest.listing import Listing
from imaging.dataset.version.dataset_version import DatasetVersion, newest_version
from imaging.formats.series import DROP_STUDY
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Pool
from imaging.sources.protocol import Source
from imaging.store.protocol import Damaged, Missing
from tasks.requests import IngestRequest

ATTEMPTS = 8
"""How often what is new is looked for, or a version made, anew since another run has published one meanwhile."""


@dataclass(frozen=True, kw_only=True)
class IngestJob:
    """An ingest with everything opened: what each step of it needs.

    `base` is the version before the listing. The workers of the `sandbox` started with it; `read_new` ends them.
    """

    request: IngestRequest
    source: Source
    spec: PreprocessSpec
    pseudonyms: Pseudonyms
    labels: LabelTable | None
    journal: Journal
    sandbox: Pool
    base: DatasetVersion | None
    listing: Listing
    bad_slice: str

    @property
    def drops_studies(self) -> bool:
        """Whether a bad slice costs its study."""
        return self.bad_slice == DROP_STUDY

    def plan(self, previous: DatasetVersion | None) -> IngestPlan:
        """Return what must be read beside a version."""
        return plan_ingest(
            self.listing,
            previous,
            self.spec.digest,
            self.pseudonyms,
            base=self.base,
            drops_studies=self.drops_studies,
        )


@dataclass(frozen=True, kw_only=True)
class News:
    """What is new beside a version: what stands of it alone, the finished chunks, and what stands with them."""

    previous: DatasetVersion | None
    beside: IngestPlan
    chunks: Sequence[str]
    scan: IngestPlan


def what_is_new(job: IngestJob, before: News | None = None) -> News:
    """Return what must be read beside the newest version and the finished chunks; `before` is what was new then."""
    for attempt in range(1, ATTEMPTS + 1):
        # The chunks before the version: those that are gone meanwhile are in it.
        chunks = job.journal.chunks()
        previous = newest_version(job.journal.store, job.request.dataset)
        try:
            return _news(job, previous, chunks, before)
        except (Missing, Damaged):
            # Another run may have put them into a version and dropped them while they were being read.
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


def _news(
    job: IngestJob, previous: DatasetVersion | None, chunks: Sequence[str], before: News | None
) -> News:
    # Mostly nobody has published meanwhile, and what stands need not be found again.
    same = before if before and digest_of(before.previous) == digest_of(previous) else None
    if same and same.chunks == chunks:
        return same
    beside = same.beside if same else job.plan(previous)
    scan = with_finished_chunks(beside, job.journal.read(chunks), job.spec.digest)
    return News(previous=previous, beside=beside, chunks=chunks, scan=scan)


def digest_of(version: DatasetVersion | None) -> str | None:
    """Return the name of a version, None where there is none yet."""
    return version.digest if version else None
