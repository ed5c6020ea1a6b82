"""Comparison of two dataset versions: rows that were added, removed or changed, and what must never change."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.tables.annotation_rows import finding_array
from imaging.dataset.tables.row_operations import concat_columns
from imaging.dataset.tables.schemas import FINDING, TABLES
from imaging.dataset.tables.table_files import read_parts
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.head import VersionHead
from imaging.errors import UserFault

FIXED = ("split", "patient_key", "pixel_blake3")
"""Columns that never change once they have a value: a patient stays in a split, and other pixels are a conflict."""
LABEL = "label"
ANNOTATIONS = "annotations"
HEAD_FIELDS = (
    "dataset",
    "spec",
    "classes",
    "findings",
    "mask_classes",
    "label_level",
    "patient_variants",
    "format",
)
"""Fields of a head that are true of all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """How many instances, and the first of their keys."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What `radloop dataset diff` shows. `changed` are instances of both versions, by the column that differs.

    `alarms` are instances whose `FIXED` values changed, and patients whose split did; they are given only for versions
    of one dataset, since each dataset draws its own splits. `relabelled` are instances whose label changed, or one of
    whose findings did. Of the removed ones `removed_for_good` have a tombstone; the others are refused now.
    """

    old: str
    new: str
    head: Mapping[str, tuple[Any, Any]]
    same: int
    added: Keys
    removed: Keys
    removed_for_good: int
    changed: Mapping[str, Keys]
    relabelled: Keys
    alarms: Mapping[str, Keys]
    refusals: Mapping[str, tuple[int, int]]


def compare(old: DatasetVersion, new: DatasetVersion, first: int) -> Difference:
    """Return the difference; rows of parts that both versions have are not read, and of the others a column at a time.

    Raises UserFault where the versions were made with different keys: nobody is the same in both.
    """
    if old.head.key_fingerprint != new.head.key_fingerprint:
        raise UserFault(
            f"the versions were made with the keys {old.head.key_fingerprint} and {new.head.key_fingerprint}, under "
            "which no two pseudonyms are of one patient: compare versions of one key"
        )
    rows = _CommonRows(old, new)
    others = {name: rows.differ(name) for name in TABLES["examples"].names}
    others = {name: other for name, other in others.items() if other.any()}
    touched = np.logical_or.reduce([np.zeros(len(rows.keys), np.bool_), *others.values()])
    # What had no value before was not changed: a label may come late, and the split comes with it.
    had = {
        name: others[name] & rows.had_value(name) if name in others else touched & False
        for name in (*FIXED, LABEL)
    }
    annotated, reannotated = rows.annotations_differ()
    changed = {name: rows.keys.filter(pa.array(other)) for name, other in others.items()}
    changed |= {ANNOTATIONS: annotated} if len(annotated) else {}
    changed_keys = pc.unique(concat_columns([rows.keys.filter(pa.array(touched)), annotated]))
    relabelled = concat_columns([rows.keys.filter(pa.array(had[LABEL])), reannotated])
    alarms = {}
    if old.head.dataset == new.head.dataset:
        alarms = {name: _keys(rows.keys.filter(pa.array(had[name])), first) for name in FIXED}
        alarms["side of the patient"] = _keys(_moved(old, new), first)
    dead = new.table("tombstones", ["instance_key"])["instance_key"]
    return Difference(
        old=old.digest,
        new=new.digest,
        head=_heads(old.head, new.head),
        same=new.table("examples", ["row"]).num_rows - len(rows.added) - len(changed_keys),
        added=_keys(rows.added, first),
        removed=_keys(rows.removed, first),
        removed_for_good=len(rows.removed.filter(pc.is_in(rows.removed, value_set=dead))),
        changed={name: _keys(keys, first) for name, keys in changed.items()},
        relabelled=_keys(pc.unique(relabelled), first),
        alarms={name: keys for name, keys in alarms.items() if keys.count},
        refusals=_refusals(old.refusals_by_reason(), new.refusals_by_reason()),
    )


class _CommonRows:
    """Rows of two versions outside their common parts: `keys` of instances in both, `added` ones and `removed` ones."""

    def __init__(self, old: DatasetVersion, new: DatasetVersion) -> None:
        parts = [one.head.parts["examples"] for one in (old, new)]
        shared = set(parts[0]).intersection(parts[1])
        self._both = (old, new)
        self._versions = [
            (one.store, [name for name in names if name not in shared])
            for one, names in zip((old, new), parts, strict=True)
        ]
        was, now = (self._column(number, "instance_key") for number in (0, 1))
        at = pc.index_in(was, value_set=now)
        self._rows = (np.flatnonzero(pc.is_valid(at).to_numpy()), at.drop_null().to_numpy())
        self.keys = was.take(pa.array(self._rows[0]))
        self.added = now.filter(pc.invert(pc.is_in(now, value_set=was)))
        self.removed = was.filter(pc.is_null(at))

    def differ(self, name: str) -> NDArray[np.bool_]:
        """Return for each of `keys` whether a column has another value, or one where there was none."""
        before, after = (self._column(number, name).take(pa.array(self._rows[number])) for number in (0, 1))
        one_alone = pc.xor(pc.is_null(before), pc.is_null(after))
        return np.asarray(pc.coalesce(pc.not_equal(before, after), one_alone).to_numpy(), np.bool_)

    def had_value(self, name: str) -> NDArray[np.bool_]:
        """Return for each of `keys` whether a column had a value before."""
        return np.asarray(pc.is_valid(self._column(0, name)).to_numpy()[self._rows[0]], np.bool_)

    def annotations_differ(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Return the instances in both versions whose annotations differ, and those of them that lost or changed one.

        They may lie in parts of the examples that both versions have, of which `keys` has none.
        """
        parts = [one.head.parts.get(ANNOTATIONS, ()) for one in self._both]
        shared = set(parts[0]).intersection(parts[1])
        own = [[name for name in names if name not in shared] for names in parts]
        rows = [
            [part["instance_key"] for part in _each(one, some)]
            for one, some in zip(self._both, own, strict=True)
        ]
        keys = pc.unique(concat_columns([column for columns in rows for column in columns]))
        in_both = pc.invert(
            pc.is_in(
                keys, value_set=pa.chunked_array([*self.added.chunks, *self.removed.chunks], pa.string())
            )
        )
        keys = pa.chunked_array([keys.filter(in_both)])
        names = sorted({*self._both[0].head.findings, *self._both[1].head.findings})
        was, now = (
            finding_array(keys, _each(one, some), names) for one, some in zip(self._both, own, strict=True)
        )
        before, after = (_identities(one, some) for one, some in zip(self._both, own, strict=True))
        gone, came = (
            some["instance_key"].filter(pc.invert(pc.is_in(some["identity"], value_set=others["identity"])))
            for some, others in ((before, after), (after, before))
        )
        lost, new = (np.asarray(pc.is_in(keys, value_set=some), np.bool_) for some in (gone, came))
        other = was != now
        lost |= (other & (was >= 0)).any(axis=1)
        return keys.filter(pa.array(lost | new | other.any(axis=1))), keys.filter(pa.array(lost))

    def _column(self, number: int, name: str) -> pa.ChunkedArray:
        return read_parts(*self._versions[number], TABLES["examples"], [name])[name]


def _each(version: DatasetVersion, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the annotations of some parts, one part at a time."""
    return (read_parts(version.store, [name], TABLES[ANNOTATIONS]) for name in names)


def _identities(version: DatasetVersion, names: Sequence[str]) -> pa.Table:
    """Return the key and, as one text, the whole of each annotation in some parts that is no finding."""
    kept = (part.filter(pc.not_equal(part["kind"], FINDING)) for part in _each(version, names))
    rows = pa.concat_tables([TABLES[ANNOTATIONS].empty_table(), *kept])
    texts = [pc.fill_null(column.cast(pa.string()), "") for column in rows.columns]
    identity = pc.binary_join_element_wise(*texts, "\0")
    return pa.table({"instance_key": rows["instance_key"], "identity": identity})


def _moved(old: DatasetVersion, new: DatasetVersion) -> pa.ChunkedArray:
    """Return the patients who had a split and have another one now."""
    if old.head.parts["splits"] == new.head.parts["splits"]:
        return pa.chunked_array([], pa.string())
    was, now = old.table("splits"), new.table("splits")
    split = now["split"].take(pc.index_in(was["patient_key"], value_set=now["patient_key"]))
    return was["patient_key"].filter(pc.fill_null(pc.not_equal(was["split"], split), False))


def _heads(old: VersionHead, new: VersionHead) -> dict[str, tuple[Any, Any]]:
    """Return the fields of the heads that differ, as JSON has them."""
    was, now = (json.loads(one.to_json()) for one in (old, new))
    pairs = {name: (was.get(name, []), now.get(name, [])) for name in HEAD_FIELDS}
    return {name: (before, after) for name, (before, after) in pairs.items() if before != after}


def _refusals(was: Mapping[str, int], now: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    both = {name: (was.get(name, 0), now.get(name, 0)) for name in sorted({*was, *now})}
    return {name: counts for name, counts in both.items() if counts[0] != counts[1]}


def _keys(keys: pa.ChunkedArray, first: int) -> Keys:
    return Keys(count=len(keys), first=tuple(keys.slice(0, first).to_pylist()))
