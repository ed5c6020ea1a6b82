"""Owns what is different between two versions: rows that came, that went, and that are not what they were."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.tables.table_files import read_parts
from imaging.dataset.version.dataset_version import DatasetVersion, VersionHead, reasons
from imaging.errors import UserFault

KEPT = ("split", "patient_key", "pixel_blake3")
"""What an instance never changes once it has it: a patient stays on a side, and other pixels are a conflict."""
LABEL = "label"
TOLD = ("dataset", "spec", "classes", "label_level", "patient_variants", "format")
"""What a head says of all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """How many instances, and the first of their keys."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What `radloop dataset diff` tells. `changed` are instances of both, by the column that is not the same.

    `alarms` are those whose `KEPT` values became others, and patients whose side did, between versions of one dataset:
    two draw their sides apart. `relabelled` are those whose label did. Of those removed, `removed_for_good` have a
    tombstone; the others are refused now.
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
    """Return what is different; rows of parts that both have are not read, and of the others a column at a time.

    Raises UserFault where the versions were made with different keys: nobody is the same in both.
    """
    if old.head.key_fingerprint != new.head.key_fingerprint:
        raise UserFault(
            f"the versions were made with the keys {old.head.key_fingerprint} and {new.head.key_fingerprint}, under "
            "which no two pseudonyms are of one patient: compare versions of one key"
        )
    beside = _Beside(old, new)
    others = {name: beside.differ(name) for name in TABLES["examples"].names}
    others = {name: other for name, other in others.items() if other.any()}
    touched = np.logical_or.reduce([np.zeros(len(beside.keys), np.bool_), *others.values()])
    # What had no value before was not changed: a label may come late, and brings its side along.
    had = {
        name: others[name] & beside.told(name) if name in others else touched & False
        for name in (*KEPT, LABEL)
    }
    alarms = {}
    if old.head.dataset == new.head.dataset:
        alarms = {name: _keys(beside.keys.filter(pa.array(had[name])), first) for name in KEPT}
        alarms["side of the patient"] = _keys(_moved(old, new), first)
    dead = new.table("tombstones", ["instance_key"])["instance_key"]
    return Difference(
        old=old.digest,
        new=new.digest,
        head=_heads(old.head, new.head),
        same=new.table("examples", ["row"]).num_rows - len(beside.added) - int(touched.sum()),
        added=_keys(beside.added, first),
        removed=_keys(beside.removed, first),
        removed_for_good=len(beside.removed.filter(pc.is_in(beside.removed, value_set=dead))),
        changed={name: _keys(beside.keys.filter(pa.array(other)), first) for name, other in others.items()},
        relabelled=_keys(beside.keys.filter(pa.array(had[LABEL])), first),
        alarms={name: keys for name, keys in alarms.items() if keys.count},
        refusals=_refusals(reasons(old), reasons(new)),
    )


class _Beside:
    """Rows of two versions that are not in parts of both: `keys` of both, and those that came and that went."""

    def __init__(self, old: DatasetVersion, new: DatasetVersion) -> None:
        parts = [one.head.parts["examples"] for one in (old, new)]
        shared = set(parts[0]).intersection(parts[1])
        self._sides = [
            (one.store, [name for name in names if name not in shared])
            for one, names in zip((old, new), parts, strict=True)
        ]
        was, now = (self._column(side, "instance_key") for side in (0, 1))
        at = pc.index_in(was, value_set=now)
        self._rows = (np.flatnonzero(pc.is_valid(at).to_numpy()), at.drop_null().to_numpy())
        self.keys = was.take(pa.array(self._rows[0]))
        self.added = now.filter(pc.invert(pc.is_in(now, value_set=was)))
        self.removed = was.filter(pc.is_null(at))

    def differ(self, name: str) -> NDArray[np.bool_]:
        """Tell of each of `keys` whether a column has another value, or one where there was none."""
        before, after = (self._column(side, name).take(pa.array(self._rows[side])) for side in (0, 1))
        one_alone = pc.xor(pc.is_null(before), pc.is_null(after))
        return np.asarray(pc.coalesce(pc.not_equal(before, after), one_alone).to_numpy(), np.bool_)

    def told(self, name: str) -> NDArray[np.bool_]:
        """Tell of each of `keys` whether a column had a value before."""
        return np.asarray(pc.is_valid(self._column(0, name)).to_numpy()[self._rows[0]], np.bool_)

    def _column(self, side: int, name: str) -> pa.ChunkedArray:
        return read_parts(*self._sides[side], TABLES["examples"], [name])[name]


def _moved(old: DatasetVersion, new: DatasetVersion) -> pa.ChunkedArray:
    """Return the patients who had a side and have another one now."""
    if old.head.parts["splits"] == new.head.parts["splits"]:
        return pa.chunked_array([], pa.string())
    was, now = old.table("splits"), new.table("splits")
    side = now["split"].take(pc.index_in(was["patient_key"], value_set=now["patient_key"]))
    return was["patient_key"].filter(pc.fill_null(pc.not_equal(was["split"], side), False))


def _heads(old: VersionHead, new: VersionHead) -> dict[str, tuple[Any, Any]]:
    """Return what is true of all rows and is not the same, as JSON has it."""
    was, now = (json.loads(one.to_json()) for one in (old, new))
    return {name: (was[name], now[name]) for name in TOLD if was[name] != now[name]}


def _refusals(was: Mapping[str, int], now: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    both = {name: (was.get(name, 0), now.get(name, 0)) for name in sorted({*was, *now})}
    return {name: counts for name, counts in both.items() if counts[0] != counts[1]}


def _keys(keys: pa.ChunkedArray, first: int) -> Keys:
    return Keys(count=len(keys), first=tuple(keys.slice(0, first).to_pylist()))
