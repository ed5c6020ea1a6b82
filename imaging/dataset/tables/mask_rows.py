"""Rows of the annotations table about masks: what was drawn in each, where its shard is, and why one was refused.

The value of a row is JSON. `made_with` is a digest of all that the mask follows from: its files, the classes, the grid
of its image and the preprocessing; a later night that has the same digest keeps the row and reads nothing. Then come
the numbers of the classes that have a pixel (`present`) and of those that nobody drew (`unknown`), or `reason` and
`detail` of a mask that was refused.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.tables.schemas import MASK, TABLES
from imaging.image.source_grid import grid_of_row
from imaging.preprocess.inverse import model_axes
from imaging.preprocess.spec import PreprocessSpec

TARGET = "mask"
SCHEMA = TABLES["annotations"]
GRID_COLUMNS = (
    *("rows", "columns", "spacing_mm"),
    *("slices", "slice_spacing", "row_spacing", "column_spacing", "affine"),
)
"""Columns of an example that `grid_of_row` needs."""
SPACING_COLUMNS = GRID_COLUMNS[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskAnnotations:
    """Masks of the examples of a version: names of the classes, rows of the table, and lines without effect.

    `level` is that of the identifiers by which they were joined.
    """

    classes: tuple[str, ...]
    rows: pa.Table
    level: str = "instance"
    lines_without_image: tuple[int, ...] = ()
    lines_in_conflict: tuple[int, ...] = ()


def drawn_value(made_with: str, present: Sequence[int], unknown: Sequence[int]) -> str:
    """Return the value of a mask that was read."""
    return _json({"made_with": made_with, "present": list(present), "unknown": list(unknown)})


def refused_value(made_with: str, reason: str, detail: str) -> str:
    """Return the value of a mask that was refused."""
    return _json({"made_with": made_with, "reason": reason, "detail": detail})


def made_with(value: str) -> str:
    """Return the digest of what a mask was made with."""
    return str(json.loads(value)["made_with"])


def mask_row(key: str, value: str, shard: str | None = None, row: int | None = None) -> dict[str, Any]:
    """Return a row of the table; without a shard the mask was refused."""
    named = {"instance_key": key, "target": TARGET, "kind": MASK, "value": value}
    return {**named, "mask_shard": shard, "mask_row": row}


def rows_of_masks(annotations: pa.Table) -> pa.Table:
    """Return the rows of the table that are about masks, the refused ones too."""
    return annotations.filter(pc.equal(annotations["kind"], MASK))


def faults_of(keys: pa.ChunkedArray, rows: pa.Table) -> pa.ChunkedArray:
    """Return for each example why it has no mask: the reason of its row, "no-mask", or null where it has one."""
    refused = rows.filter(pc.is_null(rows["mask_shard"]))
    reasons = pa.array(
        [str(json.loads(value)["reason"]) for value in refused["value"].to_pylist()], pa.string()
    )
    of_row = pa.chunked_array([reasons]).take(pc.index_in(keys, value_set=refused["instance_key"]))
    drawn = rows["instance_key"].filter(pc.is_valid(rows["mask_shard"]))
    none = pa.scalar(None, pa.string())
    return pc.if_else(pc.is_in(keys, value_set=drawn), none, pc.coalesce(of_row, pa.scalar("no-mask")))


def refusals_of(rows: pa.Table) -> Iterable[tuple[str, str, str]]:
    """Yield key, reason and detail of each mask that was refused."""
    refused = rows.filter(pc.is_null(rows["mask_shard"]))
    for key, value in zip(refused["instance_key"].to_pylist(), refused["value"].to_pylist(), strict=True):
        known = json.loads(value)
        yield key, known["reason"], known["detail"]


def class_presence(keys: pa.ChunkedArray, rows: pa.Table, classes: int) -> NDArray[np.int8]:
    """Return what masks have of each class (keys, classes): 1 a pixel, 0 none though it was drawn, -1 not drawn."""
    drawn = rows.filter(pc.is_valid(rows["mask_shard"]))
    coded = drawn["value"].combine_chunks().dictionary_encode()
    # Most masks of a dataset have the same classes, but each its own digest: the parts are parsed once each.
    of_value = np.full((len(coded.dictionary) + 1, classes), -1, np.int8)
    for array, value in zip(of_value, coded.dictionary.to_pylist(), strict=False):
        array[:] = _presence(json.loads(value), classes)
    at = pc.index_in(keys, value_set=drawn["instance_key"])
    codes = np.append(coded.indices.to_numpy().astype(np.int64), len(coded.dictionary))
    presence: NDArray[np.int8] = of_value[codes[at.fill_null(len(drawn)).to_numpy()]]
    return presence


def model_spacings(examples: pa.Table, spec: PreprocessSpec) -> NDArray[np.float64]:
    """Return the distances of slices, rows and columns of the model's grid (examples, 3) in mm, NaN where not known.

    `examples` have SPACING_COLUMNS. What lies between the planes of single images their rows do not say.
    """
    kinds: dict[tuple[Any, ...], NDArray[np.float64]] = {}
    rows = zip(*(examples[name].to_pylist() for name in SPACING_COLUMNS), strict=True)
    spacings = np.empty((examples.num_rows, 3), np.float64)
    for at, row in enumerate(rows):
        if row not in kinds:
            kinds[row] = _spacing(dict(zip(SPACING_COLUMNS, row, strict=True)), spec)
        spacings[at] = kinds[row]
    return spacings


def _spacing(row: Mapping[str, Any], spec: PreprocessSpec) -> NDArray[np.float64]:
    unknown = np.full(3, np.nan)
    # Without it the distances of a file are relative.
    if row["spacing_mm"] is None:
        return unknown
    grid = grid_of_row({**row, "affine": bytes(96)}, volume=spec.kind == "volume")
    if grid.spacing is None:
        return unknown
    steps = [axis.step for axis in model_axes(grid, spec)][-len(grid.spacing) :]
    unknown[-len(steps) :] = np.multiply(steps, grid.spacing)
    return unknown


def _presence(value: Mapping[str, Any], classes: int) -> NDArray[np.int8]:
    array = np.zeros(classes, np.int8)
    array[[number - 1 for number in value["present"]]] = 1
    array[[number - 1 for number in value["unknown"]]] = -1
    return array


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
