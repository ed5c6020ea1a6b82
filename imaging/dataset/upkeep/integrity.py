"""Integrity of a version: every object of it is there, and has the content that its name says."""

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from numpy.lib.format import read_array_header_1_0, read_magic

from imaging.dataset.tables.row_operations import concat
from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.tables.shard import shard_name
from imaging.dataset.tables.table_files import read_parts, read_whole, rows_digest
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.head import head_name
from imaging.store.protocol import Damaged, Missing

OnProgress = Callable[[int, int, int], object]
"""Gets how many objects are checked, how many are known so far, and the bytes of the last one."""
Check = Callable[[bytes], str]
"""Returns what is wrong with an object's content, "" where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """An object of the store that is gone or not what it must be: its name, and what is wrong with it."""

    name: str
    what: str


def find_flaws(version: DatasetVersion, on_progress: OnProgress = lambda *_: None) -> list[Flaw]:
    """Return which parts and shards of a version are damaged, gone or too short for its rows, after reading all.

    They are read from the store itself, never from a cache, one object at a time.
    """
    head = version.head
    parts = dict.fromkeys((name for names in head.parts.values() for name in names), lambda _: "")
    flaws = list(_check(version, parts, on_progress, 0))
    if not flaws and not _is_named(version):
        flaws.append(
            Flaw(name=head_name(head.dataset, head.digest), what="is not the version that its name says")
        )
    bad = {flaw.name for flaw in flaws}
    ends = _ends(version, bad)
    shards = {shard_name(digest): _shard_check(version.spec.shape, rows) for digest, rows in ends.items()}
    return [*flaws, *_check(version, shards, on_progress, len(parts))]


def _check(
    version: DatasetVersion, checks: Mapping[str, Check], on_progress: OnProgress, before: int
) -> Iterator[Flaw]:
    on_progress(before, before + len(checks), 0)
    for done, (name, check) in enumerate(checks.items(), before + 1):
        content = b""
        try:
            content = version.store.read(name)
            what = check(content)
        except Missing:
            what = "is gone"
        except Damaged:
            what = "is not what was stored"
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        if what:
            yield Flaw(name=name, what=what)
        on_progress(done, before + len(checks), len(content))


def _is_named(version: DatasetVersion) -> bool:
    """Return whether tables and head give the digest that names the version, and the head has the right counts."""
    head = version.head
    if head.counts not in (None, version.count()) or head.named().digest != head.digest:
        return False
    return head.contents == {
        name: tuple(rows_digest(read_whole(version.store, part)) for part in parts)
        for name, parts in head.parts.items()
    }


def _ends(version: DatasetVersion, bad: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return the lowest and the highest row of each shard that examples and masks of sound parts point at."""
    images, masks = (
        read_parts(
            version.store,
            [name for name in version.head.parts.get(table, ()) if name not in bad],
            TABLES[table],
            columns,
        ).rename_columns(["shard", "row"])
        for table, columns in (("examples", ["shard", "row"]), ("annotations", ["mask_shard", "mask_row"]))
    )
    rows = concat([images, masks.drop_null()], images.schema)
    ends = rows.group_by("shard").aggregate([("row", "min"), ("row", "max")]).sort_by("shard").to_pylist()
    return {one["shard"]: (one["row_min"], one["row_max"]) for one in ends}


def _shard_check(shape: tuple[int, ...], rows: tuple[int, int]) -> Check:
    """Return the check of a shard: an array of images of a shape, with all rows from the lowest to the highest."""

    def check(content: bytes) -> str:
        file = io.BytesIO(content)
        try:
            read_magic(file)
            stored, fortran, kind = read_array_header_1_0(file)
        except ValueError:
            return "is no array"
        if (stored[1:], fortran, kind.str) != (shape, False, "|u1"):
            return f"holds {kind.str} of shape {stored[1:]}, and examples are |u1 of shape {shape}"
        if len(content) - file.tell() != prod(stored):
            return f"has not the {prod(stored)} bytes that its head says"
        lowest, highest = rows
        if lowest < 0 or highest >= stored[0]:
            return f"has {stored[0]} rows, and examples point at rows {lowest} to {highest}"
        return ""

    return check
