"""Owns one chunk of ingest: some source files in, one shard and their rows out again and again."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from imaging.dataset.ingest.prepare_files import COLUMNS, as_item, keep_memory
from imaging.dataset.tables.schemas import EXAMPLES, FINGERPRINT_BYTES, REFUSALS
from imaging.dataset.tables.shard import ShardWriter
from imaging.errors import DataFault
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Level, Pseudonyms
from imaging.sandbox.pool import Item
from imaging.sandbox.worker_process import Answer
from imaging.sources.protocol import Payload, Source, SourceFile
from imaging.sources.work import Outcome, Run
from imaging.store.protocol import Store

ITEM_FILES, ITEM_BYTES = 32, 32 * 2**20
"""What a worker is given at a time. A message and a turn of two processes cost a fifth of what a slice does."""
PARTS = 8
"""Few files are given in so many parts, that all workers have as many."""

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of the files of one chunk, in the columns of `imaging.dataset.tables.schemas`."""

    examples: pa.Table
    refusals: pa.Table


def prepare_chunk(
    source: Source,
    files: Sequence[SourceFile],
    spec: PreprocessSpec,
    pseudonyms: Pseudonyms,
    store: Store,
    run: Run,
) -> ChunkResult:
    """Fetch some files, have them read and prepared by `run`, and write their images as one shard.

    A few dozen files are held at a time. What ends a worker is found by giving it each file of an item alone, so that
    it costs one file.
    """
    keep_memory()
    rows, alone = Rows(pseudonyms), list[SourceFile]()
    with ShardWriter(store, spec.shape) as shard:

        def take(given: Sequence[SourceFile], at_once: int) -> None:
            for some, outcome in work(source, given, run, at_once):
                if isinstance(outcome, Answer):
                    rows.add(some, outcome, shard.rows)
                    if outcome.blobs:
                        shard.add(outcome.blobs[0])
                elif len(some) == 1:
                    rows.refuse(some[0], outcome.reason, outcome.detail, "")
                else:
                    alone.extend(some)

        take(files, min(ITEM_FILES, -(-len(files) // PARTS)))
        take(alone, 1)
        name = shard.finish() if shard.rows else ""
    return rows.result(spec.digest, name)


def work(
    source: Source, files: Sequence[SourceFile], run: Run, at_once: int
) -> Iterator[tuple[Sequence[SourceFile], Outcome]]:
    """Yield what became of the files, some at a time in their order; those that cannot be fetched come last."""
    refused: list[tuple[Sequence[SourceFile], DataFault]] = []
    sent: deque[Sequence[SourceFile]] = deque()

    def pack(some: list[tuple[SourceFile, Payload]]) -> Item:
        sent.append([file for file, _ in some])
        return as_item([payload for _, payload in some])

    def items() -> Iterator[Item]:
        some: list[tuple[SourceFile, Payload]] = []
        size = 0
        for file in files:
            try:
                payload = source.fetch(file)
            except DataFault as fault:
                refused.append(([file], fault))
                continue
            some.append((file, payload))
            size += max(file.size_bytes, sum(len(one) for one in payload.contents if isinstance(one, bytes)))
            if len(some) == at_once or size >= ITEM_BYTES:
                yield pack(some)
                some, size = [], 0
        if some:
            yield pack(some)

    for outcome in run(items()):
        yield sent.popleft(), outcome
    yield from refused


class Rows:
    """Collects the rows of a chunk as columns, original identifiers replaced."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._examples: Columns = {name: [] for name in EXAMPLES.names}
        self._refusals: Columns = {name: [] for name in REFUSALS.names}
        self._once = pseudonyms.key
        # Files of a chunk are of few patients.
        self._key = cache(pseudonyms.key)
        self._otherwise = cache(pseudonyms.otherwise)

    def add(self, files: Sequence[SourceFile], answer: Answer, first: int) -> None:
        """Add what the sandbox said of some files, whose images are in the shard from row `first` on."""
        for number, reason, detail, study in answer.value["faults"]:
            self.refuse(files[number], reason, detail, study)
        rows = answer.value["rows"]
        if not rows:
            return
        told = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        prints = bytes(answer.blobs[1])
        new = self._keyed(told) | self._sources(files, told.pop("payload"))
        new |= {name: told[name] for name in told.keys() & self._examples.keys()}
        new["row"] = list(range(first, first + len(rows)))
        new["fingerprint"] = [
            prints[at : at + FINGERPRINT_BYTES] for at in range(0, len(prints), FINGERPRINT_BYTES)
        ]
        for name, values in new.items():
            self._examples[name] += values

    def refuse(self, file: SourceFile, reason: str, detail: str, study_uid: str) -> None:
        """Add a file that gave no example, and the UID of its study, "" where that cannot be told."""
        study = self._key("study", study_uid) if study_uid else ""
        new = self._sources([file], [0]) | {"study_key": [study], "reason": [reason], "detail": [detail]}
        for name, values in new.items():
            self._refusals[name] += values

    def result(self, spec: str, shard: str) -> ChunkResult:
        """Return the tables."""
        self._examples["shard"] = [shard] * len(self._examples["row"])
        for columns, counted in ((self._examples, "row"), (self._refusals, "reason")):
            columns["spec"] = [spec] * len(columns[counted])
        return ChunkResult(
            examples=pa.Table.from_pydict(self._examples, EXAMPLES),
            refusals=pa.Table.from_pydict(self._refusals, REFUSALS),
        )

    def _keyed(self, told: Mapping[str, list[Any]]) -> Columns:
        uids, frames = told["sop_instance_uid"], told["frame"]
        # A frame is an example of its own, and labels name the object that it is of.
        instances = [
            self._once("instance", f"{uid}/{frame}" if frame else uid)
            for uid, frame in zip(uids, frames, strict=True)
        ]
        return {
            "instance_key": instances,
            "object_key": [
                self._object(uid, series, instance if not frame else None)
                for uid, series, frame, instance in zip(
                    uids, told["series_uid"], frames, instances, strict=True
                )
            ],
            "series_key": self._keys("series", told["series_uid"]),
            "study_key": self._keys("study", told["study_uid"]),
            "patient_key": self._keys("patient", told["patient_id"]),
            "patient_variant": [self._otherwise(patient) for patient in told["patient_id"]],
            "site_key": [self._key("site", name) if name else "" for name in told["institution"]],
        }

    def _object(self, uid: str, series_uid: str, instance_key: str | None) -> str:
        """Return the key of an object; what is named by its series alone, a volume or a picture, is the series."""
        if uid == series_uid:
            return self._key("series", uid)
        return instance_key or self._key("instance", uid)

    def _keys(self, level: Level, identifiers: Sequence[str]) -> list[str]:
        return [self._key(level, identifier) for identifier in identifiers]

    def _sources(self, files: Sequence[SourceFile], numbers: Sequence[int]) -> Columns:
        keys = [self._once("file", file.name) for file in files]
        of_rows = [files[number] for number in numbers]
        return {
            "source_key": [keys[number] for number in numbers],
            "source_size": [file.size_bytes for file in of_rows],
            "source_mtime_ns": [file.mtime_ns for file in of_rows],
            "source_tag": [file.tag for file in of_rows],
        }
