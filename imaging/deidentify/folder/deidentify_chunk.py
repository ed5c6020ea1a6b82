"""De-identification of one chunk: from source files to partial output files and rows of the ledger."""

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from imaging.deidentify.folder.destination import IMAGES, partial_name
from imaging.deidentify.folder.file_ledger import LedgerEntry
from imaging.errors import DataFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item
from imaging.sources.dispatch import Outcome, Run, dispatch
from imaging.sources.protocol import Payload, Source, SourceFile, format_of
from imaging.store.folder_store import SYNCS, FolderStore

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
LEVELS = ("patient", "study", "series", "instance")
LEGAL = {
    **dict.fromkeys(LEVELS, UID),
    "patient": re.compile(r"[0-9a-f]{8,64}"),
    "blake3": re.compile(r"[0-9a-f]{64}"),
}
"""Legal forms of an answer's values: identifiers become names of folders, so that nothing else may be in them."""


class DicomOnly:
    """A source that returns DICOM objects only; images of other formats are refused one by one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.kind = source.kind
        self.scan = source.scan

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of the source."""
        return self._source.default_spec()

    def fetch(self, file: SourceFile) -> Payload:
        """Return one DICOM object; others are refused by their names, unread."""
        if format_of(file.name) != "dicom":
            raise DataFault("not-dicom")
        return self._source.fetch(file)


def deidentify_chunk(
    source: Source, files: Sequence[SourceFile], pseudonyms: Pseudonyms, partial: Path, run: Run
) -> tuple[LedgerEntry, ...]:
    """Fetch some files, have `run` write their outputs, and store these durably as partial files.

    No output passes through this process. Doing it again makes the same files.
    """
    store, entries, syncs = FolderStore(partial), {}, list[Future[None]]()
    keys = {file.name: pseudonyms.key("file", file.name) for file in files}
    # A worker that was given this chunk before may still be writing: never to the same file.
    temporary = {name: f"{key}.{token_hex(8)}" for name, key in keys.items()}

    def item_of(payloads: Sequence[Payload]) -> Item:
        (payload,) = payloads
        value = {"format": payload.format, "name": payload.name}
        return Item(value, payload.contents, partial / temporary[payload.name])

    # Each sync waits for the disk, and the sandbox must not wait for it.
    with ThreadPoolExecutor(SYNCS) as executor:
        for (file,), outcome in dispatch(source, files, run, item_of):
            entry = entries[file.name] = _entry(file, keys[file.name], outcome)
            if entry.output:
                name = partial_name(entry.source_key)
                syncs.append(executor.submit(store.finalize, temporary[file.name], name))
        for sync in syncs:
            sync.result()
    store.sync([partial_name("any")])
    # In the order of the source: of two objects in conflict the first one is kept.
    return tuple(entries[file.name] for file in files)


def _entry(file: SourceFile, key: str, outcome: Outcome) -> LedgerEntry:
    entry = LedgerEntry(source_key=key, source_size=file.size_bytes, source_mtime_ns=file.mtime_ns)
    if isinstance(outcome, DataFault):
        return replace(entry, reason=outcome.reason, detail=outcome.detail)
    value = outcome.value
    if "fault" in value:
        reason, detail = value["fault"]
        return replace(entry, reason=reason, detail=detail)
    if not all(pattern.fullmatch(str(value.get(name, ""))) for name, pattern in LEGAL.items()):
        return replace(entry, reason="unreadable", detail="the answer holds no legal identifiers")
    return replace(
        entry,
        output="/".join([IMAGES, *(value[level] for level in LEVELS)]) + ".dcm",
        blake3=value["blake3"],
        detail=" ".join(value["findings"]),
        variant_key=value.get("patient_variant", value["patient"]),
    )
