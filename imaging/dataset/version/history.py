"""Listing of the datasets and versions of a store, and the versions that a person names by words or digits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from imaging.dataset.version.dataset_version import DatasetVersion, open_version
from imaging.dataset.version.head import Labelled, head_name, pointer_name
from imaging.errors import RadloopError, UserFault
from imaging.store.protocol import Store

HEAD = re.compile(r"datasets/(?P<dataset>[^/]+)/versions/(?P<digest>[0-9a-f]+)\.json")
SHOWN = 12
"""Digits of a digest that are shown to a person."""
FEWEST = 4
"""Digits that a person must give at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedVersion:
    """A version in a listing; its time (ns since 1970) is that of its head's last writing."""

    dataset: str
    digest: str
    mtime_ns: int
    current: bool

    @property
    def name(self) -> str:
        """The name of its head in the store."""
        return head_name(self.dataset, self.digest)

    @property
    def time(self) -> str:
        """When it was made, in UTC."""
        return datetime.fromtimestamp(self.mtime_ns / 1e9, UTC).isoformat(timespec="seconds")

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"dataset": self.dataset, "digest": self.digest, "time": self.time, "current": self.current}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCounts:
    """Counts of a listed version, see `Counts`; where it cannot be read, `trouble` says why."""

    examples: int = 0
    patients: int = 0
    labelled: Labelled = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    findings: Labelled = field(default_factory=dict)
    trouble: str = ""


def list_versions(store: Store, dataset: str = "") -> list[ListedVersion]:
    """Return the versions of a dataset, or of all of them: by name, the newest first."""
    heads = [(HEAD.fullmatch(one.name), one.mtime_ns) for one in store.names(_folder(dataset))]
    named = [(match["dataset"], match["digest"], mtime_ns) for match, mtime_ns in heads if match]
    current = {name: store.pointer(pointer_name(name)) for name in {name for name, _, _ in named}}
    return [
        ListedVersion(dataset=name, digest=digest, mtime_ns=mtime_ns, current=current[name] == digest)
        for name, digest, mtime_ns in sorted(named, key=lambda one: (one[0], -one[2], one[1]))
    ]


def listed_counts(store: Store, listed: ListedVersion) -> ListedCounts:
    """Return the counts of a version, also of one that is damaged or of another format; most are in its head alone."""
    try:
        return ListedCounts(**asdict(open_version(store, listed.dataset, listed.digest).counts))
    except RadloopError as fault:
        return ListedCounts(trouble=str(fault))


def open_by_name(store: Store, name: str, digest: str = "") -> DatasetVersion:
    """Open a dataset's version by its first digits (at least FEWEST), or the current one where none are given.

    `name` may be NAME@DIGEST too. Raises UserFault, which says what there is.
    """
    dataset, _, after = name.partition("@")
    versions = list_versions(store, dataset)
    if not versions:
        raise UserFault(_unknown(store, dataset))
    digits = digest or after
    if not digits:
        at = [one for one in versions if one.current]
        if not at:
            raise UserFault(f"dataset {dataset!r} has no current version: name one of {_some(versions)}")
        return open_version(store, dataset, at[0].digest)
    matching = [one for one in versions if one.digest.startswith(digits)]
    if len(digits) < FEWEST or len(matching) != 1:
        count = f"{len(matching)} versions that begin with" if len(digits) >= FEWEST else "too few digits in"
        raise UserFault(f"dataset {dataset!r} has {count} {digits!r}: name one of {_some(versions)}")
    return open_version(store, dataset, matching[0].digest)


def open_by_name_or_digest(store: Store, text: str) -> DatasetVersion:
    """Open the version of NAME, of NAME@DIGEST, or of the first digits of a digest in any dataset."""
    matching = (
        [] if len(text) < FEWEST else [one for one in list_versions(store) if one.digest.startswith(text)]
    )
    if len(matching) == 1 and not list_versions(store, text):
        return open_version(store, matching[0].dataset, matching[0].digest)
    return open_by_name(store, text)


def _folder(dataset: str) -> str:
    return f"datasets/{dataset}/versions/" if dataset else "datasets/"


def _unknown(store: Store, dataset: str) -> str:
    known = sorted({one.dataset for one in list_versions(store)})
    there = (
        f"there are {', '.join(map(repr, known))}"
        if known
        else "there is none yet: run `radloop ingest` first"
    )
    return f"there is no dataset {dataset!r}: {there}"


def _some(versions: Sequence[ListedVersion]) -> str:
    more = f" and {len(versions) - 5} more, see `radloop dataset list`" if len(versions) > 5 else ""
    return ", ".join(one.digest[:SHOWN] for one in versions[:5]) + more
