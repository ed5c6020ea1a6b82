"""Preparation of one chunk of source files: its images become a shard, large ones several, and each image a row."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from imaging.dataset.ingest.prepare_files import COLUMNS, item_of, keep_memory
from imaging.dataset.tables.schemas import EXAMPLES, FINGERPRINT_BYTES, REFUSALS
from imaging.dataset.tables.shard import ShardWriter
from imaging.image.source_grid import unpack_grids
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import NO_KEY, Level, Pseudonyms
from imaging.sandbox.worker_process import Answer
from imaging.sources.dispatch import Outcome, Run, dispatch
from imaging.sources.protocol import Source, SourceFile
from imaging.store.protocol import Store

ITEM_FILES, ITEM_BYTES = 32, 32 * 2**20
"""Most files and bytes that a worker gets at a time: a message between processes costs a fifth of what a slice does."""
PARTS = 8
"""Few files are given in so many items, that all workers get equally many."""

SHARD_BYTES = 2**29
"""A shard that has so many is ended, and another begun: tiles of one slide can be gigabytes."""
HUNG_PIECES = 3
"""Pieces of a slide that may take longer than a worker has, before the rest of it is not read."""
COUNTS = re.compile(r"([0-9]+) of ([0-9]+) ")

Columns = dict[str, list[Any]]
Outcomes = Iterator[tuple[Sequence[SourceFile], Outcome]]


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """Rows of the files of one chunk, in the columns of `imaging.dataset.tables.schemas`."""

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
    """Fetch some files, have them read and prepared by `run`, and write their images as shards.

    A few dozen files are in memory at a time. Where an item ends a worker, each of its files is given again alone, so
    that only the one that is at fault is refused.
    """
    keep_memory()
    rows, batch_files = RowCollector(pseudonyms), min(ITEM_FILES, -(-len(files) // PARTS))
    wanted: Iterable[SourceFile] = files
    if any(file.piece for file in files):
        batch_files = 1  # A piece is as much as a worker can return.
        wanted = (file for file in files if rows.hung[file.name] < HUNG_PIECES)
    outcomes: Outcomes = dispatch(source, wanted, run, item_of, batch_files, ITEM_BYTES)
    is_done = False
    while not is_done:
        with ShardWriter(store, spec.shape) as shard:
            is_done = _fill(shard, rows, outcomes)
            if shard.rows:
                rows.name_shard(shard.finish())
    return rows.result(spec.digest)


def _fill(shard: ShardWriter, rows: "RowCollector", outcomes: Outcomes) -> bool:
    """Write images and rows until the shard is large; return whether those are all."""
    for batch, outcome in outcomes:
        if isinstance(outcome, Answer):
            rows.add(batch, outcome, shard.rows)
            if outcome.blobs:
                shard.add(outcome.blobs[0])
                if shard.image_bytes >= SHARD_BYTES:
                    return False
        else:
            rows.refuse(batch[0], outcome.reason, outcome.detail, "")
    return True


class RowCollector:
    """Collector of the rows of a chunk as columns, with pseudonyms in place of the original identifiers."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._examples: Columns = {name: [] for name in EXAMPLES.names}
        self._refusals: Columns = {name: [] for name in REFUSALS.names}
        self._refused: dict[tuple[str, str], int] = {}
        self.hung = Counter[str]()
        """How many pieces of each file took longer than a worker has."""
        self._once = pseudonyms.key
        # Files of a chunk are of few patients.
        self._key = cache(pseudonyms.key)
        self._variant = cache(pseudonyms.variant_key)

    def add(self, files: Sequence[SourceFile], answer: Answer, first: int) -> None:
        """Add the sandbox's answer on some files, whose images are in the shard from row `first` on."""
        for number, reason, detail, study in answer.value["faults"]:
            self.refuse(files[number], reason, detail, study)
        rows = answer.value["rows"]
        if not rows:
            return
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        prints = bytes(answer.blobs[1])
        new = self._keyed(columns) | self._sources(files, columns.pop("payload"))
        new |= {name: columns[name] for name in columns.keys() & self._examples.keys()}
        new |= unpack_grids(answer.blobs[2])
        new["row"] = list(range(first, first + len(rows)))
        new["fingerprint"] = [
            prints[at : at + FINGERPRINT_BYTES] for at in range(0, len(prints), FINGERPRINT_BYTES)
        ]
        for name, values in new.items():
            self._examples[name] += values

    def refuse(self, file: SourceFile, reason: str, detail: str, study_uid: str) -> None:
        """Add a file that gave no example, and the UID of its study, "" where that is not known.

        Pieces of one file with one reason are one row.
        """
        details = self._refusals["detail"]
        if file.piece:
            self.hung[file.name] += reason == "decoder-hung"
            if reason == "decoder-hung" and self.hung[file.name] >= HUNG_PIECES:
                detail += f", {HUNG_PIECES} times: further pieces of the slide are not read"
            at = self._refused.setdefault((file.name, reason), len(details))
            if at < len(details):
                details[at] = _added(details[at], detail)
                return
        study = self._key("study", study_uid) if study_uid else ""
        new = self._sources([file], [0]) | {"study_key": [study], "reason": [reason], "detail": [detail]}
        for name, values in new.items():
            self._refusals[name] += values

    def name_shard(self, shard: str) -> None:
        """Give the shard of the examples that came since the one before."""
        shards = self._examples["shard"]
        shards += [shard] * (len(self._examples["row"]) - len(shards))

    def result(self, spec: str) -> ChunkResult:
        """Return the tables."""
        for columns, counted in ((self._examples, "row"), (self._refusals, "reason")):
            columns["spec"] = [spec] * len(columns[counted])
        return ChunkResult(
            examples=_table(self._examples, EXAMPLES), refusals=_table(self._refusals, REFUSALS)
        )

    def _keyed(self, columns: Mapping[str, list[Any]]) -> Columns:
        uids, frames = columns["sop_instance_uid"], columns["frame"]
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
                    uids, columns["series_uid"], frames, instances, strict=True
                )
            ],
            "series_key": self._keys("series", columns["series_uid"]),
            "study_key": self._keys("study", columns["study_uid"]),
            "patient_key": self._keys("patient", columns["patient_id"]),
            "patient_variant": [self._variant(patient) for patient in columns["patient_id"]],
            "site_key": [self._key("site", name) if name else "" for name in columns["institution"]],
            "frame_of_reference_key": [
                self._key("frame-of-reference", uid) if uid else ""
                for uid in columns["frame_of_reference_uid"]
            ],
            "slice_keys": [self._slices(uids) if uids else "" for uids in columns["slice_uids"]],
        }

    def _object(self, uid: str, series_uid: str, instance_key: str | None) -> str:
        """Return the key of an object; a volume or a picture, which is named by its series alone, has its key."""
        if uid == series_uid:
            return self._key("series", uid)
        return instance_key or self._key("instance", uid)

    def _slices(self, uids: Sequence[str]) -> str:
        """Return the keys of the slices of a volume; those of one object have one, which is made once."""
        key_of = {uid: self._once("instance", uid) if uid else NO_KEY for uid in dict.fromkeys(uids)}
        return "".join(key_of[uid] for uid in uids)

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


def _added(first: str, second: str) -> str:
    """Return the detail about two pieces of a file: counts are added, of others the last stays.

    >>> _added("3 of 4 tiles are background", "1 of 3 tiles are background")
    '4 of 7 tiles are background'
    """
    one, other = COUNTS.match(first), COUNTS.match(second)
    if not one or not other:
        return second
    count, total = (int(one[at]) + int(other[at]) for at in (1, 2))
    return f"{count} of {total} {first[one.end() :]}"


def _table(columns: Columns, schema: pa.Schema) -> pa.Table:
    # As pa.Table.from_pydict, in seven eighths of its time: a chunk may have few rows, and there are many columns.
    types = zip(schema.names, schema.types, strict=True)
    return pa.Table.from_arrays([pa.array(columns[name], kind) for name, kind in types], schema=schema)
