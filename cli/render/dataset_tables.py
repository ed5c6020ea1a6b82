"""Dataset versions in the terminal: tables, with bars for counts."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from imaging.dataset.split.shares import SPLITS
from imaging.quantities import quantity
from imaging.refusal_reasons import IGNORED, REASONS

if TYPE_CHECKING:
    # What reads tables takes most of a second to load.
    from imaging.dataset.version.compare import Difference, Keys
    from imaging.dataset.version.summary import Count, Histogram, Summary

SHOWN = 12
"""Digits of a digest or key that are printed; fewer are enough to name a version."""
TOP = 12
"""Lines of a table that are printed; --json holds them all."""
WIDTH = 32
"""Of a bar, in characters."""
NONE = "(none)"
ALARMS = {"split": "the split", "patient_key": "the patient", "pixel_blake3": "the pixels"}
"""Columns that never change, and what stands in them."""
KEYS = ("instance_key", "patient_key", "split")


def history(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return a table of the datasets and the versions of each."""
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


def summary(summary: "Summary") -> RenderableType:
    """Return what is in a version: counts, and tables with bars."""
    ignored = sum(count for name, count in summary.refusals.items() if name in IGNORED)
    spec = escape(", ".join(f"{name} {value}" for name, value in summary.spec.items()))
    parts: list[RenderableType] = [
        f"[bold]{summary.dataset}[/bold] {summary.digest}: {quantity(summary.examples, 'images')} of "
        f"{quantity(summary.patients, 'patients')}, "
        f"{'findings' if summary.findings else 'one label'} for each {summary.label_level}",
        f"prepared by {summary.spec_digest}: {spec}",
        f"{quantity(summary.shards, 'shards')}, {_size(summary.shard_bytes)}, and tables of "
        f"{_size(summary.part_bytes)}",
        f"{quantity(sum(summary.refusals.values()) - ignored, 'files')} refused, {summary.conflicts:,} of them in "
        f"conflict, and {ignored:,} ignored; {quantity(summary.tombstones, 'tombstones')}; the test patients were read "
        f"{quantity(summary.test_reads, 'times')}",
    ]
    for title, counts in summary.counts.items():
        parts += ["", _counts(title, counts)]
    parts += ["", _findings(summary.findings) if summary.findings else _crossed(summary.label_by_split)]
    if summary.unlabelled:
        parts += ["", _bars("without label", summary.unlabelled)]
    if summary.refusals:
        parts += ["", _bars("refused or ignored", summary.refusals, {**IGNORED, **REASONS})]
    for title, values in summary.values.items():
        parts += ["", _bars(title, values)]
    for title, numbers in summary.numbers.items():
        parts += ["", _bars(title, _binned(numbers), top=len(numbers.bins) + 1)]
    return Group(*parts)


def difference(difference: "Difference") -> RenderableType:
    """Return the differences between two versions; those that must never be come first."""
    parts: list[RenderableType] = [
        f"[bold red]NEVER TO CHANGE, AND CHANGED[/bold red]: {ALARMS.get(name, name)} of {_keys(keys)}"
        for name, keys in difference.alarms.items()
    ]
    if difference.relabelled.count:
        parts.append(f"[bold yellow]Another label than before[/bold yellow]: {_keys(difference.relabelled)}")
    parts += [
        f"{difference.old[:SHOWN]} to {difference.new[:SHOWN]}: {quantity(difference.same, 'images')} "
        f"{'is' if difference.same == 1 else 'are'} the same",
        f"added {_keys(difference.added)}",
        f"removed {_keys(difference.removed)}"
        + f"; {difference.removed_for_good:,} of them have a tombstone, others are refused now"
        * bool(difference.removed.count),
    ]
    if difference.changed:
        # Which they are, --json says.
        columns = ", ".join(f"{name} of {keys.count:,}" for name, keys in difference.changed.items())
        parts.append(f"changed in both: {columns}")
    parts += [
        f"refused as {name}: {was:,} before, {now:,} now" for name, (was, now) in difference.refusals.items()
    ]
    parts += [escape(f"{name} was {was} and is {now}") for name, (was, now) in difference.head.items()]
    return Group(*parts)


def overlaps(content: Mapping[str, Any]) -> RenderableType:
    """Return the overlaps of the splits, and whether the version can be trained on."""
    name = f"{content['dataset']} {content['digest'][:SHOWN]}"
    parts: list[RenderableType] = []
    if content["leaks"]:
        parts.append(
            f"[bold red]OVERLAP[/bold red] of splits in {name}: "
            f"{quantity(content['patients_on_two_sides'], 'patients')} in two splits, and "
            f"{quantity(content['near_duplicates'], 'pairs')} of near duplicates of two patients in two splits"
        )
        table = _table("image", "patient", "split", "image", "patient", "split", "distance")
        for overlap in content["leaks"][:TOP]:
            keys = [overlap[f"{which}{key}"][:SHOWN] for which in ("", "other_") for key in KEYS]
            table.add_row(
                *keys, "one patient" if overlap["distance"] is None else f"{overlap['distance']:.1f}"
            )
        parts.append(table)
        if len(content["leaks"]) > TOP:
            parts.append(f"and {len(content['leaks']) - TOP:,} more: --json lists them all")
    else:
        parts.append(f"no overlap of splits in {name}")
    trouble = content["not_trainable"]
    parts.append(f"[red]not to be trained on[/red]: {escape(trouble)}" if trouble else "it can be trained on")
    return Group(*parts)


def flaws(content: Mapping[str, Any]) -> RenderableType:
    """Return which objects of a version are damaged."""
    name = f"{content['dataset']} {content['digest'][:SHOWN]}"
    if not content["flaws"]:
        return f"{name} is whole: {quantity(content['objects'], 'objects')}, {_size(content['size_bytes'])}"
    table = _table("object of the store", "what is wrong")
    for flaw in content["flaws"]:
        table.add_row(flaw["name"], flaw["what"])
    remedy = (
        "Restore these from a copy of the store; without one, ingest into a new dataset with another --name"
    )
    return Group(f"[bold red]{name} is not whole[/bold red]", table, remedy)


def rubbish(content: Mapping[str, Any]) -> RenderableType:
    """Return what was removed, or would be."""
    verb = "removed" if content["removed"] else "to be removed (--yes does it)"
    lines = [
        f"kept: {quantity(len(content['kept']), 'versions')}; MLflow names {content['named_in_mlflow']:,}",
        *(
            f"version {one['dataset']} {one['digest'][:SHOWN]} of {one['time']}: {verb}"
            for one in content["versions"]
        ),
        f"{verb}: {quantity(len(content['versions']), 'versions')}, {len(content['objects']):,} tables and shards, "
        f"{quantity(len(content['journals']), 'files')} of unfinished nights, {_size(content['size_bytes'])}",
    ]
    if content["removed"]:
        lines.append(f"{content['drafts']:,} temporary files of writers that died: removed")
    return Group(*lines)


def exported(content: Mapping[str, Any]) -> RenderableType:
    """Return what was written."""
    counts = ", ".join(f"{count:,} of {split}" for split, count in content["examples"].items())
    return f"{content['dataset']} {content['digest'][:SHOWN]} in {escape(content['folder'])}: images {counts}"


def _counts(title: str, counts: Mapping[str, "Count"]) -> Table:
    table = _table("site (pseudonym)" if title == "site" else title, "images", "patients", "")
    most = max((one.examples for one in counts.values()), default=0)
    for name, one in list(counts.items())[:TOP]:
        # A site is a pseudonym: its first digits tell it apart.
        shown = name[:SHOWN] if title == "site" else name
        table.add_row(_named(shown), f"{one.examples:,}", f"{one.patients:,}", _bar(one.examples, most))
    return _more(table, len(counts))


def _crossed(counts: Mapping[str, Mapping[str, "Count"]]) -> Table:
    table = _table("label x split", "split", "images", "patients", "")
    most = max((one.examples for sides in counts.values() for one in sides.values()), default=0)
    rows = [(label, split, one) for label, sides in counts.items() for split, one in sorted(sides.items())]
    for label, split, one in rows[: 3 * TOP]:
        table.add_row(
            _named(label), _named(split), f"{one.examples:,}", f"{one.patients:,}", _bar(one.examples, most)
        )
    return table


def _findings(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    table = _table("finding x split", "split", "present", "absent", "unknown", "patients with it", "without")
    columns = ("present", "absent", "unknown", "patients_present", "patients_absent")
    rows = [(name, split, one) for split, names in counts.items() for name, one in names.items()]
    # The rarest first: that is where patients are missing.
    rows.sort(key=lambda row: (sum(part[row[0]]["present"] for part in counts.values()), row[0]))
    for name, split, one in rows[: 3 * TOP]:
        table.add_row(_named(name), _named(split), *(f"{one[column]:,}" for column in columns))
    return _more(table, len(rows), 3 * TOP)


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


def _binned(histogram: "Histogram") -> dict[str, int]:
    bins = {
        f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}": count
        for low, high, count in histogram.bins
    }
    return bins | ({NONE: histogram.missing} if histogram.missing else {})


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


def _keys(keys: "Keys") -> str:
    first = ", ".join(key[:SHOWN] for key in keys.first)
    more = ", ..." if len(keys.first) < keys.count else ""
    return f"{keys.count:,} ({first}{more})" if keys.count and first else f"{keys.count:,}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
