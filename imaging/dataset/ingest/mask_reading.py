"""Reading of the masks of a version: what is new or changed is read in the sandbox, all else keeps its row.

Masks are joined when a version is made, as labels are: the image is not read again, as its row has the source grid.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from imaging.annotations.label_join import KEY_OF_LEVEL
from imaging.annotations.masks.known_files import KnownFiles
from imaging.annotations.masks.mask import MaskClasses, MaskTarget
from imaging.annotations.masks.mask_table import SLICE_KEYS, MaskLine, MaskTable, join_masks
from imaging.annotations.masks.read_mask import FUNCTION, mask_item
from imaging.dataset.tables.compaction import compact_shards
from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.mask_rows import (
    GRID_COLUMNS,
    MaskAnnotations,
    drawn_value,
    made_with,
    mask_row,
    refused_value,
    rows_of_masks,
)
from imaging.dataset.tables.schemas import TABLES
from imaging.dataset.tables.shard import ShardWriter
from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.errors import DataFault, UserFault
from imaging.image.source_grid import grid_of_row
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.quantities import quantity
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from imaging.store.protocol import Store

READERS_MADE = 1
"""Number of the readers: raised when they give other masks of the same files, so that all are read again."""
AT_ONCE = 16
"""Masks that a worker gets at a time."""
ROWS_AT_ONCE = 4096

OnProgress = Callable[[int, int], object]
Run = Callable[[Iterable[Item]], Iterator[Answer | DataFault]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskInput:
    """Masks of a person: their table, the classes, the key under which the examples are named, and the known files."""

    table: MaskTable
    classes: MaskClasses
    pseudonyms: Pseudonyms
    known: KnownFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMask:
    """Mask that is to be read, with the example that it is of."""

    example: Mapping[str, Any]
    lines: tuple[MaskLine, ...]
    made_with: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPlan:
    """Masks of the examples: rows that stand as they were or need no reading, and what is to be read."""

    kept: pa.Table
    to_read: tuple[PlannedMask, ...]
    lines_without_image: tuple[int, ...]
    lines_in_conflict: tuple[int, ...]
    lines_without_file: tuple[int, ...]


def plan_masks(
    masks: MaskInput, examples: LazyRows, spec: PreprocessSpec, previous: DatasetVersion | None
) -> MaskPlan:
    """Return which masks of the examples are to be read, beside those of a version before.

    Raises UserFault where no file of the table is there: that is a folder which is not mounted, not an order to forget
    all masks.
    """
    columns = [
        "instance_key",
        "frame",
        "frame_of_reference_key",
        KEY_OF_LEVEL[masks.table.level],
        *GRID_COLUMNS,
    ]
    if spec.kind == "volume" and masks.table.level == "instance":
        columns.append(SLICE_KEYS)
    table = examples.select(list(dict.fromkeys(columns))).sort_by("instance_key")
    joined = join_masks(masks.table, table)
    _check_files(masks, joined.report.lines_without_file)
    if joined.report.lines_without_image and not any(joined.masks):
        _check_slices(table)
    before = _rows_before(previous)
    digest = cache(lambda name: masks.known.digest(masks.table.folder / name))
    kept, to_read = list[dict[str, Any]](), list[PlannedMask]()
    there = np.flatnonzero([fault != "no-mask" for fault in joined.faults])
    for at, example in zip(there.tolist(), _rows_of(table.take(there)), strict=True):
        lines, key = joined.masks[at], example["instance_key"]
        if not lines:
            kept.append(mask_row(key, refused_value("", joined.faults[at], "")))
            continue
        files = [
            # Only masks of slices name one: those of images keep their digests.
            [digest(one.file), one.format, one.drawn, *([] if one.slice is None else [one.slice])]
            for one in lines
        ]
        name = _digest(masks.classes, spec, example, files)
        if key in before and before[key][0] == name:
            kept.append(mask_row(key, *before[key][1:]))
        else:
            to_read.append(PlannedMask(example=example, lines=lines, made_with=name))
    # Masks of one file come together: it is opened once for all slices of a series.
    to_read.sort(key=lambda one: (one.lines[0].file, one.example["instance_key"]))
    return MaskPlan(
        kept=pa.Table.from_pylist(kept, TABLES["annotations"]),
        to_read=tuple(to_read),
        lines_without_image=joined.report.lines_without_image,
        lines_in_conflict=joined.report.lines_in_conflict,
        lines_without_file=joined.report.lines_without_file,
    )


def read_masks(
    masks: MaskInput,
    plan: MaskPlan,
    spec: PreprocessSpec,
    store: Store,
    run: Run,
    on_progress: OnProgress = lambda *_: None,
) -> MaskAnnotations:
    """Read what is planned by `run`, and write it as a shard; return all masks of the version.

    A mask that cannot be read, or lies elsewhere than its image, becomes a row with the reason; its image stays.
    """
    rows = list[dict[str, Any]]()
    with ShardWriter(store, spec.shape) as shard:
        for one, value, content in _outcomes(masks, plan.to_read, spec, run):
            row = shard.rows if content is not None else None
            if content is not None:
                shard.add(content)
            rows.append(mask_row(one.example["instance_key"], value, None if row is None else "", row))
            on_progress(len(rows), len(plan.to_read))
        name = shard.finish() if shard.rows else ""
    new = [row | {"mask_shard": name} if row["mask_row"] is not None else row for row in rows]
    table = pa.concat_tables([plan.kept, pa.Table.from_pylist(new, TABLES["annotations"])])
    return MaskAnnotations(
        classes=masks.classes.names,
        rows=_compacted(store, table.sort_by("instance_key"), spec.shape),
        level=masks.table.level,
        lines_without_image=plan.lines_without_image,
        lines_in_conflict=plan.lines_in_conflict,
    )


def open_mask_pool(masks: MaskInput, spec: PreprocessSpec, workers: int) -> Pool:
    """Return the processes that read masks, which start when there are any."""
    return Pool(
        FUNCTION, {"spec": spec.model_dump_json(), "classes": masks.classes.to_json()}, workers=workers
    )


def _check_files(masks: MaskInput, missing: Sequence[int]) -> None:
    if missing and not any((masks.table.folder / name).is_file() for name in masks.table.files.to_pylist()):
        raise UserFault(
            f"none of the {len(masks.table.files)} mask files of the table is in its folder: is it mounted? The column "
            "'mask' has paths relative to the table"
        )


def _check_slices(table: pa.Table) -> None:
    """Raise UserFault where lines of objects name nothing and there are volumes whose slices are not known by name."""
    without = pc.sum(pc.equal(table[SLICE_KEYS], "")).as_py() if SLICE_KEYS in table.column_names else 0
    if without:
        raise UserFault(
            f"the mask table names images by SOPInstanceUID, and of {quantity(without, 'volumes')} the slices are not "
            "known by theirs, since they are NIfTI or pictures, or were taken in before masks of slices were known: "
            "name masks by SeriesInstanceUID or file, or take the source in as a new dataset (--name)"
        )


def _rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, some at a time: one alone costs as much as a hundred."""
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _rows_before(previous: DatasetVersion | None) -> dict[str, tuple[str, str, str | None, int | None]]:
    """Return for each example its digest, value, shard and row in a version before."""
    if previous is None:
        return {}
    rows = rows_of_masks(previous.table("annotations"))
    columns = (rows[name].to_pylist() for name in ("instance_key", "value", "mask_shard", "mask_row"))
    return {key: (made_with(value), value, *place) for key, value, *place in zip(*columns, strict=True)}


def _digest(classes: MaskClasses, spec: PreprocessSpec, example: Mapping[str, Any], files: list[Any]) -> str:
    where = [example[name] for name in (*GRID_COLUMNS[:-1], "frame", "frame_of_reference_key")]
    content = [READERS_MADE, classes.to_json(), spec.digest, where, example["affine"].hex(), files]
    return blake3(json.dumps(content).encode()).hexdigest(length=16)


def _outcomes(
    masks: MaskInput, planned: Sequence[PlannedMask], spec: PreprocessSpec, run: Run
) -> Iterator[tuple[PlannedMask, str, memoryview | None]]:
    """Yield each mask with its value and its bytes, None where it was refused."""
    batches = [planned[start : start + AT_ONCE] for start in range(0, len(planned), AT_ONCE)]
    for batch, outcome in _run(masks, batches, spec, run):
        if isinstance(outcome, DataFault):
            for one in batch:
                yield one, refused_value(one.made_with, outcome.reason, outcome.detail), None
            continue
        faults = {number: (reason, detail) for number, reason, detail in outcome.value["faults"]}
        made = {number: (place, *rest) for place, (number, *rest) in enumerate(outcome.value["masks"])}
        block = memoryview(outcome.blobs[0]).cast("B") if made else memoryview(b"")
        size = len(block) // max(1, len(made))
        for number, one in enumerate(batch):
            if number in faults:
                yield one, refused_value(one.made_with, *faults[number]), None
                continue
            place, unknown, stated = made[number]
            own = one.example["frame_of_reference_key"]
            if own and any(key != own for key in masks.pseudonyms.keys("frame-of-reference", stated)):
                detail = "the FrameOfReferenceUID of the mask is not that of its image"
                yield one, refused_value(one.made_with, "mask-frame-of-reference", detail), None
                continue
            content = block[place * size : (place + 1) * size]
            seen = np.flatnonzero(np.bincount(np.frombuffer(content, np.uint8), minlength=256)).tolist()
            present = [value for value in seen if value in masks.classes.numbers and value not in unknown]
            yield one, drawn_value(one.made_with, present, unknown), content


def _run(
    masks: MaskInput, batches: Sequence[Sequence[PlannedMask]], spec: PreprocessSpec, run: Run
) -> Iterator[tuple[Sequence[PlannedMask], Answer | DataFault]]:
    """Yield batches with their outcomes; where one ended its worker, each of its masks is given again alone."""
    again = []
    for batch, outcome in zip(batches, run(_item(masks, batch, spec) for batch in batches), strict=True):
        if isinstance(outcome, DataFault) and len(batch) > 1:
            again += [[one] for one in batch]
        else:
            yield batch, outcome
    if again:
        yield from _run(masks, again, spec, run)


def _item(masks: MaskInput, batch: Sequence[PlannedMask], spec: PreprocessSpec) -> Item:
    targets, parts = [], []
    for one in batch:
        grid = grid_of_row(one.example, volume=spec.kind == "volume")
        targets.append(MaskTarget(grid=grid, frame=one.example["frame"]))
        parts.append(
            [
                {
                    "content": Path(masks.table.folder / line.file),
                    "format": line.format,
                    "slice": line.slice,
                    "drawn": line.drawn,
                }
                for line in one.lines
            ]
        )
    return mask_item(targets, parts)


def _compacted(store: Store, rows: pa.Table, shape: tuple[int, ...]) -> pa.Table:
    """Return the rows with the small shards of many nights joined, as those of images are."""
    drawn = pc.is_valid(rows["mask_shard"])
    some, others = rows.filter(drawn), rows.filter(pc.invert(drawn))
    places = some.select(["mask_shard", "mask_row"]).rename_columns(["shard", "row"])
    moved = compact_shards(store, places, shape).rename_columns(["mask_shard", "mask_row"])
    for name in moved.column_names:
        at = some.column_names.index(name)
        some = some.set_column(
            at, TABLES["annotations"].field(name), moved[name].cast(TABLES["annotations"].field(name).type)
        )
    return pa.concat_tables([some, others])
