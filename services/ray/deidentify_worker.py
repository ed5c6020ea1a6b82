"""Worker of de-identification: opens the key, the source and a sandbox of its own, and does chunks of files.

Each process of Ray loads it, so that it imports no orchestrator.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imaging.deidentify.folder.deidentify_chunk import DicomOnly, deidentify_chunk
from imaging.deidentify.folder.file_ledger import LedgerEntry
from imaging.sandbox.pool import Pool
from imaging.sources.open_source import open_source
from imaging.sources.protocol import SourceFile
from services.settings import Settings

FACTORY = "services.ray.deidentify_worker:open_worker"


@contextmanager
def open_worker(
    order: Mapping[str, Any],
) -> Iterator[Callable[[Sequence[SourceFile]], tuple[LedgerEntry, ...]]]:
    """Open what a worker needs, and yield what de-identifies a chunk of files; see `chunk_pool.Factory`."""
    settings = Settings(home=Path(order["home"]))
    pseudonyms = settings.pseudonyms_of_run(order["key_fingerprint"])
    source = DicomOnly(open_source(order["source"]))
    setup = {"options": order["options"], "secret": pseudonyms.secret.hex()}
    with Pool(order["function"], setup, workers=order["cores"]) as pool:
        yield lambda files: deidentify_chunk(source, files, pseudonyms, Path(order["drafts"]), pool.map)
