"""Owns how dataset versions are told in the terminal: tables, and bars for how many."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from imaging.dataset.split.shares import SPLITS
from imaging.dataset.version.compare import Difference, Keys
from imaging.dataset.version.history import SHOWN
from imaging.dataset.version.summary import Count, Histogram, Summary
from imaging.refusal_reasons import IGNORED, REASONS

TOP = 12
"""Lines of a table that are printed; --json holds them all."""
WIDTH = 32
"""Of a bar, in characters."""
NONE = "(none)"
ALARMS = {"split": "the split", "patient_key": "the patient", "pixel_blake3": "the pixels"}
"""What is told of a column that never changes."""
KEYS = ("instance_key", "patient_key", "split")


def history(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Tell which datasets there are, and the versions of each."""
    if not rows:
        return "There is no dataset yet: `radloop ingest` makes one"
    table = _table("dataset", "version", "made (UTC)", "images", "patients", *SPLITS, "not taken in", "")
    # A version is asked for by what stands here: in a narrow terminal the numbers are folded.
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", column.header in ("version", "made (UTC)")
    for _, versions in groupby(rows, lambda row: row["dataset"]):
        for number, row in enumerate(versions):
            counts = [""] * 6 if row["trouble"] else [f"{count:,}" for count in _counted(row)]
            note = f"[red]{escape(row['trouble'])}[/red]" if row["trouble"] else "current" * row["current"]
            table.add_row(
                row["dataset"] if not number else "",
                row["digest"][:SHOWN],
                _minute(row["time"]),
                *counts,
                note,
            )
    return table


def _minute(time: str) -> str:
    """Return a time without its seconds.

    >>> _minute("2026-11-22T21:54:09+00:00")
    '2026-11-22 21:54'
    """
    return time[:16].replace("T", " ")


def _counted(row: Mapping[str, Any]) -> Iterator[int]:
    """Yield the numbers of a version in `history`; by split are images with a label."""
    yield from (row["examples"], row["patients"])
    for split in SPLITS:
        yield sum(one["examples"] for one in row["labelled"].get(split, {}).values())
    yield sum(row["refusals"].values())


def summary(told: Summary) -> RenderableType:
    """Tell what is in a version."""
    ignored = sum(count for name, count in told.refusals.items() if name in IGNORED)
    parts: list[RenderableType] = [
        f"[bold]{told.dataset}[/bold] {told.digest}: {told.examples:,} images of {told.patients:,} patients, "
        f"one label for each {told.label_level}",
        f"prepared by {told.spec_digest}: {escape(', '.join(f'{name} {value}' for name, value in told.spec.items()))}",
        f"{told.shards:,} shards, {_size(told.shard_bytes)}, and tables of {_size(told.part_bytes)}",
        f"{sum(told.refusals.values()) - ignored:,} files refused, {told.conflicts:,} of them in conflict, and "
        f"{ignored:,} ignored; {told.tombstones:,} tombstones; the test patients were read {told.test_reads:,} times",
    ]
    for title, counts in told.counts.items():
        parts += ["", _counts(title, counts)]
    parts += ["", _crossed(told.label_by_split)]
    if told.unlabelled:
        parts += ["", _bars("without label", told.unlabelled)]
    if told.refusals:
        parts += ["", _bars("refused or ignored", told.refusals, {**IGNORED, **REASONS})]
    for title, values in told.values.items():
        parts += ["", _bars(title, values)]
    for title, numbers in told.numbers.items():
        parts += ["", _bars(title, _binned(numbers), top=len(numbers.bins) + 1)]
    return Group(*parts)


def difference(told: Difference) -> RenderableType:
    """Tell what is different between two versions; what must never be comes first."""
    parts: list[RenderableType] = [
        f"[bold red]NEVER TO CHANGE, AND CHANGED[/bold red]: {ALARMS.get(name, name)} of {_keys(keys)}"
        for name, keys in told.alarms.items()
    ]
    if told.relabelled.count:
        parts.append(f"[bold yellow]Another label than before[/bold yellow]: {_keys(told.relabelled)}")
    parts += [
        f"{told.old[:SHOWN]} to {told.new[:SHOWN]}: {told.same:,} images are the same",
        f"added {_keys(told.added)}",
        f"removed {_keys(told.removed)}"
        + f"; {told.removed_for_good:,} of them have a tombstone, others are refused now"
        * bool(told.removed.count),
    ]
    if told.changed:
        # Which they are, --json says.
        columns = ", ".join(f"{name} of {keys.count:,}" for name, keys in told.changed.items())
        parts.append(f"changed in both: {columns}")
    parts += [f"refused as {name}: {was:,} before, {now:,} now" for name, (was, now) in told.refusals.items()]
    parts += [escape(f"{name} was {was} and is {now}") for name, (was, now) in told.head.items()]
    return Group(*parts)


def leaks(told: Mapping[str, Any]) -> RenderableType:
    """Tell what leaks, and whether the version can be trained on."""
    name = f"{told['dataset']} {told['digest'][:SHOWN]}"
    parts: list[RenderableType] = []
    if told["leaks"]:
        parts.append(
            f"[bold red]LEAK[/bold red] in {name}: {told['patients_on_two_sides']:,} patients on two sides, and "
            f"{told['near_duplicates']:,} pairs of near duplicates of two patients on two sides"
        )
        table = _table("image", "patient", "split", "image", "patient", "split", "distance")
        for leak in told["leaks"][:TOP]:
            keys = [leak[f"{which}{key}"][:SHOWN] for which in ("", "other_") for key in KEYS]
            table.add_row(*keys, "one patient" if leak["distance"] is None else f"{leak['distance']:.1f}")
        parts.append(table)
        if len(told["leaks"]) > TOP:
            parts.append(f"and {len(told['leaks']) - TOP:,} more: --json lists them all")
    else:
        parts.append(f"no leak in {name}")
    trouble = told["not_trainable"]
    parts.append(f"[red]not to be trained on[/red]: {escape(trouble)}" if trouble else "it can be trained on")
    return Group(*parts)


def flaws(told: Mapping[str, Any]) -> RenderableType:
    """Tell what of a version is not whole."""
    name = f"{told['dataset']} {told['digest'][:SHOWN]}"
    if not told["flaws"]:
        return f"{name} is whole: {told['objects']:,} objects, {_size(told['size_bytes'])}"
    table = _table("object of the store", "what is wrong")
    for flaw in told["flaws"]:
        table.add_row(flaw["name"], flaw["what"])
    remedy = (
        "Restore these from a copy of the store; without one, ingest into a new dataset with another --name"
    )
    return Group(f"[bold red]{name} is not whole[/bold red]", table, remedy)


def rubbish(told: Mapping[str, Any]) -> RenderableType:
    """Tell what was removed, or would be."""
    verb = "removed" if told["removed"] else "to be removed (--yes does it)"
    lines = [
        f"kept: {len(told['kept']):,} versions; MLflow names {told['named_in_mlflow']:,}",
        *(
            f"version {one['dataset']} {one['digest'][:SHOWN]} of {one['time']}: {verb}"
            for one in told["versions"]
        ),
        f"{verb}: {len(told['versions']):,} versions, {len(told['objects']):,} tables and shards, "
        f"{len(told['journals']):,} files of unfinished nights, {_size(told['size_bytes'])}",
    ]
    if told["removed"]:
        lines.append(f"{told['drafts']:,} drafts of writers that died: removed")
    return Group(*lines)


def exported(told: Mapping[str, Any]) -> RenderableType:
    """Tell what was written."""
    counts = ", ".join(f"{count:,} of {split}" for split, count in told["examples"].items())
    return f"{told['dataset']} {told['digest'][:SHOWN]} in {escape(told['folder'])}: images {counts}"


def _counts(title: str, counts: Mapping[str, Count]) -> Table:
    table = _table("site (pseudonym)" if title == "site" else title, "images", "patients", "")
    most = max((one.examples for one in counts.values()), default=0)
    for name, one in list(counts.items())[:TOP]:
        # A site is a pseudonym: its first digits tell it apart.
        shown = name[:SHOWN] if title == "site" else name
        table.add_row(_named(shown), f"{one.examples:,}", f"{one.patients:,}", _bar(one.examples, most))
    return _more(table, len(counts))


def _crossed(counts: Mapping[str, Mapping[str, Count]]) -> Table:
    table = _table("label x split", "split", "images", "patients", "")
    most = max((one.examples for sides in counts.values() for one in sides.values()), default=0)
    rows = [(label, split, one) for label, sides in counts.items() for split, one in sorted(sides.items())]
    for label, split, one in rows[: 3 * TOP]:
        table.add_row(
            _named(label), _named(split), f"{one.examples:,}", f"{one.patients:,}", _bar(one.examples, most)
        )
    return table


def _bars(
    title: str, counts: Mapping[str, int], meanings: Mapping[str, str] = MappingProxyType({}), top: int = TOP
) -> Table:
    table = _table(title, "images" if not meanings else "files", "", "" if not meanings else "what it means")
    most = max(counts.values(), default=0)
    for name, count in list(counts.items())[:top]:
        table.add_row(_named(name), f"{count:,}", _bar(count, most), meanings.get(name, ""))
    return _more(table, len(counts), top)


def _named(value: str) -> str:
    return escape(value) or NONE


def _binned(told: Histogram) -> dict[str, int]:
    bins = {
        f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}": count for low, high, count in told.bins
    }
    return bins | ({NONE: told.missing} if told.missing else {})


def _bar(count: int, most: int) -> RenderableType:
    return Bar(size=max(most, 1), begin=0, end=count, width=WIDTH)


def _more(table: Table, there: int, top: int = TOP) -> Table:
    if there > top:
        table.add_row(f"{there - top:,} more", *[""] * (len(table.columns) - 1))
    return table


def _table(*head: str) -> Table:
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        if column.header in ("images", "patients", "files", "distance", "not taken in", *SPLITS):
            column.justify = "right"
    return table


def _keys(keys: Keys) -> str:
    first = ", ".join(key[:SHOWN] for key in keys.first)
    more = ", ..." if len(keys.first) < keys.count else ""
    return f"{keys.count:,} ({first}{more})" if keys.count and first else f"{keys.count:,}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
