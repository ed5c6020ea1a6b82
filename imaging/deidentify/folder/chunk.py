"""Owns one chunk of de-identification: source files in, drafts of their twins and rows of the ledger out."""

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from imaging.deidentify.folder.destination import IMAGES, draft_name
from imaging.deidentify.folder.ledger import Entry
from imaging.errors import DataFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sources.dispatch import Outcome, Run, dispatch
from imaging.sources.protocol import Payload, Source, SourceFile, format_of
from imaging.store.folder import SYNCS, FolderStore

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
LEVELS = ("patient", "study", "series", "instance")
LEGAL = {
    **dict.fromkeys(LEVELS, UID),
    "patient": re.compile(r"[0-9a-f]{8,64}"),
    "blake3": re.compile(r"[0-9a-f]{64}"),
}
"""How an answer looks: identifiers become names of folders, so that nothing else may stand in them."""


class DicomOnly:
    """A source of which DICOM objects alone are handed over; pictures and NIfTI are refused one by one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.kind = source.kind
        self.scan = source.scan

    def default_spec(self) -> PreprocessSpec:
        """Return the spec of the source."""
        return self._source.default_spec()

    def fetch(self, file: SourceFile) -> Payload:
        """Hand over one DICOM object; others are refused by their names, unread."""
        if format_of(file.name) != "dicom":
            raise DataFault("not-dicom")
        return self._source.fetch(file)


def deidentify_chunk(
    source: Source, files: Sequence[SourceFile], pseudonyms: Pseudonyms, drafts: Path, run: Run
) -> tuple[Entry, ...]:
    """Fetch some files, have `run` write their de-identified twins, and make drafts of these that last.

    No twin passes through this process. Doing it again makes the same drafts.
    """
    store, entries, settling = FolderStore(drafts), {}, list[Future[None]]()
    keys = {file.name: pseudonyms.key("file", file.name) for file in files}
    # Whoever did this chunk before, and was given up, may still be writing: never to the same file.
    written = {name: f"{key}.{token_hex(8)}" for name, key in keys.items()}
    # Each waits for the disk, and meanwhile the sandbox shall not wait for us.
    with ThreadPoolExecutor(SYNCS) as syncing:
        for file, outcome in dispatch(source, files, run, lambda file: drafts / written[file.name]):
            entry = entries[file.name] = _entry(file, keys[file.name], outcome)
            if entry.output:
                settling.append(
                    syncing.submit(store.finalize, written[file.name], draft_name(entry.source_key))
                )
        for settled in settling:
            settled.result()
    store.sync([draft_name("any")])
    # In the order of the source: of two objects in conflict the first one stands.
    return tuple(entries[file.name] for file in files)


def _entry(file: SourceFile, key: str, outcome: Outcome) -> Entry:
    entry = Entry(source_key=key, source_size=file.size_bytes, source_mtime_ns=file.mtime_ns)
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
