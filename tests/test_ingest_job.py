"""Job of an ingest: what goes from step to step is small for Prefect, however large the archive is."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.utilities.collections import visit_collection

from imaging.cores import available_cores
from imaging.dataset.ingest.listing import list_files
from imaging.dataset.ingest.pending_files import find_pending
from imaging.errors import EnvironmentFault
from imaging.formats.slide_source import SlideSource
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sources.protocol import SourceFile
from services.flow_requests import IngestRequest
from services.ray.ingest_worker import FileItems
from services.settings import Settings
from tasks import ingest
from tasks.ingest import IngestJob, ReadResult, open_job, read_new
from tests.sandbox_pools import workers_of
from tests.synthetic import write_archive

FILES = 300
MOST = 150
"""Values that Prefect may look at: those of the request and of the specification, the head of a version."""

pytestmark = pytest.mark.slow


@pytest.fixture
def job(settings: Settings, tmp_path: Path) -> Iterator[IngestJob]:
    images, labels = write_archive(tmp_path / "dicom", FILES)
    request = IngestRequest(source=str(images), labels=str(labels), dataset="d")
    job = open_job.fn(request, settings)
    with job.sandbox:
        yield job


def looked_at(value: object) -> int:
    """Return how many values Prefect looks at when a task is called with this one."""
    seen = list[object]()
    visit_collection(value, visit_fn=seen.append, return_data=False)
    return len(seen)


def test_a_job_is_not_looked_into_file_by_file(job: IngestJob) -> None:
    assert len(job.listing) == FILES
    assert looked_at(job) < MOST


def test_what_was_read_is_not_looked_into_row_by_row(job: IngestJob) -> None:
    assert looked_at(ReadResult(files=FILES, pending=find_pending(job))) < MOST


def test_nothing_new_is_not_planned_twice(job: IngestJob) -> None:
    once = find_pending(job)
    assert find_pending(job, once) is once


def test_the_workers_that_started_with_the_listing_read_and_are_gone(
    job: IngestJob, settings: Settings
) -> None:
    ahead = [worker.pid for worker in workers_of(os.getpid())]
    seen = set[int]()

    def on_progress(*_: int) -> None:
        seen.update(worker.pid for worker in workers_of(os.getpid()))

    assert read_new.fn(job, settings, "", on_progress).files == FILES
    assert (len(ahead), seen) == (available_cores(), {*ahead})
    assert not workers_of(os.getpid())


def test_a_source_that_cannot_be_listed_leaves_no_worker(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = write_archive(tmp_path / "dicom", 3)

    def broken(*_: object) -> None:
        assert workers_of(os.getpid())
        raise EnvironmentFault("the disk is gone")

    monkeypatch.setattr("imaging.dataset.ingest.pending_files.list_files", broken)
    with pytest.raises(EnvironmentFault):
        open_job.fn(IngestRequest(source=str(images), labels=str(labels), dataset="d"), settings)
    assert not workers_of(os.getpid())


def test_of_slides_the_pieces_count_for_a_cluster(
    job: IngestJob, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = list[str]()
    monkeypatch.setattr(ingest, "_read_on_cluster", lambda request, *_: jobs.append(request.dataset))
    cluster = settings.model_copy(update={"ray_address": "http://cluster:8265"})
    spec = PreprocessSpec(slide_mpp=0.5)
    pieces = {file.name: (file,) * 10 for file in job.listing}
    slides = replace(job, spec=spec, source=SlideSource(job.source, job.sandbox, spec, pieces))
    assert ingest.PIECES_RAY_FROM < 10 * FILES < ingest.RAY_FROM
    read_new.fn(slides, cluster, "run", lambda *_: None)
    assert jobs == ["d"]


def test_a_worker_gets_the_files_as_they_were_listed(job: IngestJob) -> None:
    works = FileItems(job.listing, job.source)
    assert [work.file for work in works[10:13]] == list(job.source.scan())[10:13]
    assert (len(works), works[7].file) == (FILES, next(iter(works[7:8])).file)


def test_a_name_that_is_no_text_is_listed_as_it_is() -> None:
    file = SourceFile(name=b"caf\xe9".decode(errors="surrogateescape"), size_bytes=1, mtime_ns=2, tag="t")
    listing = list_files([file], Pseudonyms(b"k"))
    assert list(listing) == [file]
    assert listing.named(listing.table["source_key"]) == {Pseudonyms(b"k").key("file", file.name): file.name}
