"""Owns which datasets and versions a store has, and what a person calls them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from imaging.dataset.version.counts import Labelled
from imaging.dataset.version.dataset_version import DatasetVersion, head_name, open_version, pointer_name
from imaging.errors import RadloopError, UserFault
from imaging.store.protocol import Store

HEAD = re.compile(r"datasets/(?P<dataset>[^/]+)/versions/(?P<digest>[0-9a-f]+)\.json")
SHOWN = 12
"""Digits of a digest that tell versions apart for a person; `named_version` takes no fewer than `FEWEST`."""
FEWEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A version in a listing; its time is that of its head's last writing, since 1970."""

    dataset: str
    digest: str
    mtime_ns: int
    current: bool

    @property
    def name(self) -> str:
        """Where its head lives in the store."""
        return head_name(self.dataset, self.digest)

    @property
    def time(self) -> str:
        """When it was made, in UTC."""
        return datetime.fromtimestamp(self.mtime_ns / 1e9, UTC).isoformat(timespec="seconds")

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"dataset": self.dataset, "digest": self.digest, "time": self.time, "current": self.current}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How much a version holds, see `Counts`; where it cannot be read, `trouble` says why."""

    examples: int = 0
    patients: int = 0
    labelled: Labelled = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


def versions(store: Store, dataset: str = "") -> list[Past]:
    """Return the versions of a dataset, or of all of them: by name, the newest first."""
    heads = [(HEAD.fullmatch(one.name), one.mtime_ns) for one in store.names(_folder(dataset))]
    found = [(match["dataset"], match["digest"], mtime_ns) for match, mtime_ns in heads if match]
    current = {name: store.pointer(pointer_name(name)) for name in {name for name, _, _ in found}}
    return [
        Past(dataset=name, digest=digest, mtime_ns=mtime_ns, current=current[name] == digest)
        for name, digest, mtime_ns in sorted(found, key=lambda one: (one[0], -one[2], one[1]))
    ]


def count(store: Store, past: Past) -> Counted:
    """Return how much a version holds, be it damaged or of another format; most say it in their head alone."""
    try:
        return Counted(**asdict(open_version(store, past.dataset, past.digest).counted))
    except RadloopError as fault:
        return Counted(trouble=str(fault))


def named_version(store: Store, name: str, digest: str = "") -> DatasetVersion:
    """Open what a person names: a dataset's version by some first digits, or the current one where there are none.

    `name` may be NAME@DIGEST too. Raises UserFault, which says what there is.
    """
    dataset, _, after = name.partition("@")
    found = versions(store, dataset)
    if not found:
        raise UserFault(_unknown(store, dataset))
    wanted = digest or after
    if not wanted:
        at = [one for one in found if one.current]
        if not at:
            raise UserFault(f"dataset {dataset!r} has no current version: name one of {_some(found)}")
        return open_version(store, dataset, at[0].digest)
    matching = [one for one in found if one.digest.startswith(wanted)]
    if len(wanted) < FEWEST or len(matching) != 1:
        told = f"{len(matching)} versions that begin with" if len(wanted) >= FEWEST else "too few digits in"
        raise UserFault(f"dataset {dataset!r} has {told} {wanted!r}: name one of {_some(found)}")
    return open_version(store, dataset, matching[0].digest)


def find_version(store: Store, told: str) -> DatasetVersion:
    """Open what a person names alone: NAME, NAME@DIGEST, or the first digits of a digest of any dataset."""
    matching = [] if len(told) < FEWEST else [one for one in versions(store) if one.digest.startswith(told)]
    if len(matching) == 1 and not versions(store, told):
        return open_version(store, matching[0].dataset, matching[0].digest)
    return named_version(store, told)


def _folder(dataset: str) -> str:
    return f"datasets/{dataset}/versions/" if dataset else "datasets/"


def _unknown(store: Store, dataset: str) -> str:
    known = sorted({one.dataset for one in versions(store)})
    there = (
        f"there are {', '.join(map(repr, known))}"
        if known
        else "there is none yet: run `radloop ingest` first"
    )
    return f"there is no dataset {dataset!r}: {there}"


def _some(found: Sequence[Past]) -> str:
    more = f" and {len(found) - 5} more, see `radloop dataset list`" if len(found) > 5 else ""
    return ", ".join(one.digest[:SHOWN] for one in found[:5]) + more
