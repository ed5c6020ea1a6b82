"""Worker of ingest: opens the key, the source, the store and a sandbox of its own, and prepares chunks of files.

Each process of Ray loads it, so that it imports no orchestrator.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from blake3 import blake3

from imaging.dataset.ingest.chunk import prepare_chunk
from imaging.dataset.ingest.journal import Journal
from imaging.dataset.ingest.listing import Listing
from imaging.dataset.ingest.prepare_files import FUNCTION as PREPARE
from imaging.formats.series_source import SeriesSource
from imaging.formats.slide_source import SlideSource
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Pool
from imaging.sources.open_source import open_source
from imaging.sources.protocol import Source, SourceFile
from services.settings import Settings

FACTORY = "services.ray.ingest_worker:open_worker"


@dataclass(frozen=True, slots=True)
class FileItem:
    """A listed file, and the files that it is made of where it is a series."""

    file: SourceFile
    members: tuple[SourceFile, ...] = ()


class FileItems(Sequence[FileItem]):
    """Listed files as workers take them, each made when it is asked for."""

    def __init__(self, files: Listing, source: Source) -> None:
        self._files = files
        self._members = source.members if isinstance(source, SeriesSource) else {}

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, at: int) -> FileItem: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[FileItem]: ...
    def __getitem__(self, at: int | slice) -> FileItem | Sequence[FileItem]:
        if isinstance(at, int):
            return self[at : at + 1][0]
        return [FileItem(file, self._members.get(file.name, ())) for file in self._files[at]]


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Numbers of examples and refused files of a chunk; its rows are in the journal."""

    examples: int
    refusals: int


def open_sandbox(spec: PreprocessSpec, workers: int) -> Pool:
    """Return the processes that read and prepare files."""
    return Pool(PREPARE, {"spec": spec.model_dump_json()}, workers=workers)


@contextmanager
def open_worker(order: Mapping[str, Any]) -> Iterator[Callable[[Sequence[FileItem]], ChunkCounts]]:
    """Open what a worker needs, and yield what prepares a chunk of files; see `services.ray.chunk_pool.Factory`."""
    settings = Settings(home=Path(order["home"]), store=order["store"])
    own = settings.pseudonyms_of_run(order["key_fingerprint"])
    pseudonyms = replace(own, patient_variants=order["patient_variants"])
    spec = PreprocessSpec.model_validate_json(order["spec"])
    table = Path(order["labels"]).expanduser() if order["labels"] else None
    source = open_source(order["source"], table, slides=spec.slide_mpp is not None)
    store = settings.dataset_store
    journal = Journal(store, order["dataset"], order["made_with"])
    with order.get("sandbox") or open_sandbox(spec, order["cores"]) as pool:

        def prepare(chunk: Sequence[FileItem]) -> ChunkCounts:
            files = [item.file for item in chunk]
            name = chunk_name(files, pseudonyms)
            members = {item.file.name: item.members for item in chunk if item.members}
            whole: Source = source
            if members and spec.slide_mpp is not None:
                whole = slides = SlideSource(source, pool, spec, members)
                files = slides.pieces(files)
            elif members:
                whole = SeriesSource(source, pool, order["bad_slice"], members)
            made = prepare_chunk(whole, files, spec, pseudonyms, store, pool.map)
            journal.add(name, made.examples, made.refusals)
            return ChunkCounts(made.examples.num_rows, made.refusals.num_rows)

        yield prepare


def chunk_name(files: Sequence[SourceFile], pseudonyms: Pseudonyms) -> str:
    """Return a digest of the files of a chunk, their sizes and times: the same chunk again has the same name."""
    states = [(pseudonyms.key("file", file.name), file.size_bytes, file.mtime_ns, file.tag) for file in files]
    return blake3(repr(states).encode()).hexdigest(length=16)
