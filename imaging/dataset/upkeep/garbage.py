"""Garbage of a store: old versions, stale journals, and the objects that no kept version or journal names.

A version is kept while it is among the newest, current, or named by somebody. What a running night needs is kept too:
whatever is young, and all that a journal names.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import pyarrow.compute as pc

from imaging.dataset.tables.schemas import EXAMPLES, TABLES
from imaging.dataset.tables.shard import shard_name
from imaging.dataset.tables.table_files import read_parts
from imaging.dataset.version.dataset_version import open_version
from imaging.dataset.version.head import VersionHead
from imaging.dataset.version.history import ListedVersion, list_versions
from imaging.errors import EnvironmentFault, RadloopError, UserFault
from imaging.release_compatibility import newer
from imaging.store.content_digest import digest_of
from imaging.store.protocol import Damaged, Missing, Store, Stored

JOURNAL = re.compile(r"datasets/[^/]+/journal/")
OBJECTS = ("manifests/", "shards/")
"""Folders of objects that are removed when nothing names them; of all else only heads and journals are touched."""
OnProgress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept: the `keep` newest versions of each dataset, the ones that somebody names, and whatever is young.

    `pins` are first digits of digests, `named` whole ones; young is what is not older than `oldest_ns` (since 1970).
    """

    oldest_ns: int
    keep: int
    pins: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What can be removed, in this order: so that whatever is visible is whole."""

    kept: tuple[ListedVersion, ...]
    heads: tuple[ListedVersion, ...]
    journals: tuple[Stored, ...]
    objects: tuple[Stored, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the journals and objects; heads are not counted."""
        return sum(one.size_bytes for one in (*self.journals, *self.objects))


def find_garbage(store: Store, retention: Retention, on_progress: OnProgress = lambda *_: None) -> Garbage:
    """Return what can be removed; `on_progress` gets how many tables of how many were read.

    Raises UserFault for a pin that names nothing, and EnvironmentFault where a version that stays cannot be read:
    nobody knows what it needs.
    """
    # In this order: a chunk that leaves the journal meanwhile is in a version that is listed after it.
    objects = [one for folder in OBJECTS for one in store.names(folder) if digest_of(one.name)]
    journals = [one for one in store.names("datasets/") if JOURNAL.match(one.name)]
    unpublished = set(_of_journals(store, journals, on_progress))
    versions = list_versions(store)
    _check_pins(versions, retention.pins)
    kept = [
        one
        for _, of_one in groupby(versions, lambda one: one.dataset)
        for one in _kept(list(of_one), retention)
    ]
    needed = unpublished.union(_of_versions(store, kept, on_progress))
    return Garbage(
        kept=tuple(kept),
        heads=tuple(one for one in versions if one not in kept),
        journals=tuple(_stale(journals, retention.oldest_ns)),
        objects=tuple(
            one for one in objects if one.mtime_ns < retention.oldest_ns and one.name not in needed
        ),
    )


def remove_garbage(store: Store, garbage: Garbage, on_progress: OnProgress = lambda *_: None) -> None:
    """Remove it; what a killed run leaves is removed the next time. `on_progress` gets how many objects are removed."""
    names = [one.name for one in garbage.heads]
    names += [one.name for one in (*garbage.journals, *garbage.objects)]
    for done, name in enumerate(names, 1):
        store.remove(name)
        on_progress(done, len(names))


def _kept(versions: Sequence[ListedVersion], retention: Retention) -> Iterator[ListedVersion]:
    """Yield the versions of a dataset, the newest first, that are kept."""
    # A run that began before the young ones were there may still read the newest of the others.
    before = next((one for one in versions if one.mtime_ns < retention.oldest_ns), None)
    for number, one in enumerate(versions):
        young = number < retention.keep or one.mtime_ns >= retention.oldest_ns or one is before
        if young or one.current or one.digest in retention.named or one.digest.startswith(retention.pins):
            yield one


def _of_versions(store: Store, kept: Sequence[ListedVersion], on_progress: OnProgress) -> Iterator[str]:
    """Yield the names of all parts and shards of versions; of a part that many have, once."""
    heads = [_head(store, one) for one in kept]
    examples = sorted({name for head in heads for name in head.parts["examples"]})
    yield from (name for head in heads for names in head.parts.values() for name in names)
    annotations = sorted({name for head in heads for name in head.parts.get("annotations", ())})
    for done, name in enumerate(examples, 1):
        yield from _shards(store, name)
        on_progress(done, len(examples) + len(annotations))
    for done, name in enumerate(annotations, len(examples) + 1):
        yield from _shards(store, name, "mask_shard")
        on_progress(done, len(examples) + len(annotations))


def _of_journals(store: Store, journals: Sequence[Stored], on_progress: OnProgress) -> Iterator[str]:
    """Yield the shards of chunks that are in no version yet; those of stale chunks too, which go the next time."""
    chunks = [one.name for one in journals if one.name.endswith(".examples.parquet")]
    for done, name in enumerate(chunks, 1):
        # One that is gone is in a version now, and one that cannot be read will be in none.
        with suppress(Missing, Damaged):
            yield from _shards(store, name)
        on_progress(done, len(chunks))


def _shards(store: Store, part: str, column: str = "shard") -> list[str]:
    schema = EXAMPLES if column == "shard" else TABLES["annotations"]
    digests = read_parts(store, [part], schema, [column])[column].drop_null()
    return [shard_name(digest) for digest in pc.unique(digests).to_pylist()]


def _stale(journals: Sequence[Stored], oldest_ns: int) -> Iterator[Stored]:
    """Yield the journals to which nobody has added a chunk for so long."""
    folders: dict[str, list[Stored]] = {}
    for one in journals:
        folders.setdefault(one.name.rpartition("/")[0], []).append(one)
    for chunks in folders.values():
        if all(one.mtime_ns < oldest_ns for one in chunks):
            yield from chunks


def _check_pins(versions: Sequence[ListedVersion], pins: Sequence[str]) -> None:
    for pin in pins:
        if not pin or not any(one.digest.startswith(pin) for one in versions):
            raise UserFault(f"no version begins with {pin!r}, which --pin names: see `radloop dataset list`")


def _head(store: Store, listed: ListedVersion) -> VersionHead:
    try:
        head = open_version(store, listed.dataset, listed.digest).head
        if head.unknown:
            raise UserFault(newer("its head", f"has {', '.join(sorted(head.unknown))}"))
        return head
    except (RadloopError, ValueError) as error:
        raise EnvironmentFault(
            f"{listed.name} of the store cannot be read ({error}), and nobody knows what it needs: nothing is removed; "
            f"restore it from a copy, or remove datasets/{listed.dataset}/ if nobody needs that dataset"
        ) from None
