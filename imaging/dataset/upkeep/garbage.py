"""Owns what of a store nobody needs any more: old versions, and the objects that no version names.

A version is kept while it is among the newest, current, or named by somebody. What a night that is running needs is
kept too: whatever is young, and all that stands in a journal.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import pyarrow.compute as pc

from imaging.dataset.tables.schemas import EXAMPLES
from imaging.dataset.tables.shard import shard_name
from imaging.dataset.tables.table_files import read_parts
from imaging.dataset.version.dataset_version import VersionHead, open_version
from imaging.dataset.version.history import Past, versions
from imaging.errors import EnvironmentFault, RadloopError, UserFault
from imaging.store.digest import digest_of
from imaging.store.protocol import Damaged, Missing, Store, Stored

JOURNAL = re.compile(r"datasets/[^/]+/journal/")
OBJECTS = ("manifests/", "shards/")
"""Where objects are that go when nothing names them; nothing else of a store is touched but heads and journals."""
Told = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be kept: so many versions of each dataset, those that somebody names, and what is not older.

    `pins` are first digits of digests, `named` whole ones; `oldest_ns` is a time since 1970.
    """

    oldest_ns: int
    keep: int
    pins: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rubbish:
    """What can go, and in which order: so that whatever is seen is whole."""

    kept: tuple[Past, ...]
    heads: tuple[Past, ...]
    journals: tuple[Stored, ...]
    objects: tuple[Stored, ...]

    @property
    def size_bytes(self) -> int:
        """How much of the store it takes, but for the heads."""
        return sum(one.size_bytes for one in (*self.journals, *self.objects))


def find_rubbish(store: Store, wish: Wish, told: Told = lambda *_: None) -> Rubbish:
    """Find what can go; `told` gets how many tables of how many were read.

    Raises UserFault for a pin that names nothing, and EnvironmentFault where a version that stays cannot be read:
    nobody knows what it needs.
    """
    # In this order: a chunk that leaves the journal meanwhile is in a version that is listed after it.
    objects = [one for folder in OBJECTS for one in store.names(folder) if digest_of(one.name)]
    journals = [one for one in store.names("datasets/") if JOURNAL.match(one.name)]
    waiting = set(_of_journals(store, journals, told))
    past = versions(store)
    _check_pins(past, wish.pins)
    kept = [one for _, of_one in groupby(past, lambda one: one.dataset) for one in _kept(list(of_one), wish)]
    needed = waiting.union(_of_versions(store, kept, told))
    return Rubbish(
        kept=tuple(kept),
        heads=tuple(one for one in past if one not in kept),
        journals=tuple(_stale(journals, wish.oldest_ns)),
        objects=tuple(one for one in objects if one.mtime_ns < wish.oldest_ns and one.name not in needed),
    )


def remove(store: Store, rubbish: Rubbish, told: Told = lambda *_: None) -> None:
    """Remove it; what a run that is killed leaves of it goes the next time."""
    names = [one.name for one in rubbish.heads]
    names += [one.name for one in (*rubbish.journals, *rubbish.objects)]
    for done, name in enumerate(names, 1):
        store.remove(name)
        told(done, len(names))


def _kept(past: Sequence[Past], wish: Wish) -> Iterator[Past]:
    """Yield the versions of a dataset, the newest first, that are kept."""
    # A run that began before the young ones were there may still read the newest of the others.
    before = next((one for one in past if one.mtime_ns < wish.oldest_ns), None)
    for number, one in enumerate(past):
        young = number < wish.keep or one.mtime_ns >= wish.oldest_ns or one is before
        if young or one.current or one.digest in wish.named or one.digest.startswith(wish.pins):
            yield one


def _of_versions(store: Store, kept: Sequence[Past], told: Told) -> Iterator[str]:
    """Yield the names of all parts and shards of versions; of a part that many have, once."""
    heads = [_head(store, one) for one in kept]
    examples = sorted({name for head in heads for name in head.parts["examples"]})
    yield from (name for head in heads for names in head.parts.values() for name in names)
    for done, name in enumerate(examples, 1):
        yield from _shards(store, name)
        told(done, len(examples))


def _of_journals(store: Store, journals: Sequence[Stored], told: Told) -> Iterator[str]:
    """Yield the shards of chunks that no version holds yet, stale ones too: theirs go the next time."""
    chunks = [one.name for one in journals if one.name.endswith(".examples.parquet")]
    for done, name in enumerate(chunks, 1):
        # One that is gone is in a version now, and one that cannot be read will be in none.
        with suppress(Missing, Damaged):
            yield from _shards(store, name)
        told(done, len(chunks))


def _shards(store: Store, part: str) -> list[str]:
    rows = read_parts(store, [part], EXAMPLES, ["shard"])
    return [shard_name(digest) for digest in pc.unique(rows["shard"]).to_pylist()]


def _stale(journals: Sequence[Stored], oldest_ns: int) -> Iterator[Stored]:
    """Yield the journals to which nobody has added a chunk for so long."""
    folders: dict[str, list[Stored]] = {}
    for one in journals:
        folders.setdefault(one.name.rpartition("/")[0], []).append(one)
    for chunks in folders.values():
        if all(one.mtime_ns < oldest_ns for one in chunks):
            yield from chunks


def _check_pins(past: Sequence[Past], pins: Sequence[str]) -> None:
    for pin in pins:
        if not pin or not any(one.digest.startswith(pin) for one in past):
            raise UserFault(f"no version begins with {pin!r}, which --pin names: see `radloop dataset list`")


def _head(store: Store, past: Past) -> VersionHead:
    try:
        return open_version(store, past.dataset, past.digest).head
    except (RadloopError, ValueError) as error:
        raise EnvironmentFault(
            f"{past.name} of the store cannot be read ({error}), and nobody knows what it needs: nothing is removed; "
            f"restore it from a copy, or remove datasets/{past.dataset}/ if nobody needs that dataset"
        ) from None
