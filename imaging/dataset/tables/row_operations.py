"""Operations on whole tables of rows: repeated instances and lost studies are refused, masks applied, tables joined.

Nothing here makes an object for each row, since a dataset may have ten million.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.tables.lazy_rows import LazyRows
from imaging.dataset.tables.schemas import REFUSALS
from imaging.refusal_reasons import CONFLICTING_INSTANCE, IGNORED, NO_LOSS

Codes = NDArray[np.int64]
Column: TypeAlias = Sequence[str | None] | pa.Array | pa.ChunkedArray


def refuse_repeats(examples: LazyRows, ranks: Codes, *, drop_equal_pixels: bool) -> tuple[LazyRows, pa.Table]:
    """Return the examples without repeated instances, and a refusal for each repetition.

    Of several examples of one instance the one of the lowest rank is kept, and of equal ranks the first. The same
    pixels under two SOPInstanceUIDs could end on both sides of a split, so the later one is refused where splits are
    drawn here (`drop_equal_pixels`), and kept where the source fixes them.
    """
    columns = examples.select(["instance_key", "pixel_blake3"])
    order = np.argsort(ranks, kind="stable")
    instances, pixels = codes(columns["instance_key"])[order], codes(columns["pixel_blake3"])[order]
    first = first_equal(instances)
    repeated = first != np.arange(len(first))
    same = pixels[first] == pixels
    reason = np.where(repeated, np.where(same, "duplicate-instance", CONFLICTING_INSTANCE), "")
    if drop_equal_pixels:
        # Among the kept ones alone: a refused copy does not count as the first with its pixels.
        at = np.flatnonzero(~repeated)
        first[at] = at[first_equal(pixels[at])]
        reason[at[first[at] != at]] = "duplicate-pixels"
    refused = np.empty(len(first), np.bool_)
    refused[order] = reason != ""
    at = np.flatnonzero(reason != "")
    # In the order of the rows, not of their ranks.
    at = at[np.argsort(order[at])]
    details = instance_details(columns["instance_key"].take(pa.array(order[first[at]])))
    repeats = refusals_of(examples.filter(pa.array(refused)), pa.array(reason[at], pa.string()), details)
    return examples.filter(pa.array(~refused)), repeats


def filter_batches(table: pa.Table, mask: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows of a table that a mask selects; batches of which all rows stay are not copied."""
    whole = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
    kept, start = [], 0
    for batch in table.to_batches():
        here = whole.slice(start, batch.num_rows)
        start += batch.num_rows
        kept.append(batch if here.true_count == len(here) else batch.filter(here))
    return pa.Table.from_batches(kept, table.schema)


def instance_details(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the details of refusals that repeat instances of these keys."""
    return pc.binary_join_element_wise("instance", pc.utf8_slice_codeunits(keys, 0, 12), " ")


def refuse_lost_studies(examples: LazyRows, refusals: pa.Table) -> tuple[pa.Array, pa.Table]:
    """Return the mask of examples whose study lost a slice (the policy drop-study), and a refusal for each file."""
    harmless = pa.array(["", *IGNORED, *NO_LOSS])
    costly = refusals.filter(pc.invert(pc.is_in(refusals["reason"], value_set=harmless)))
    lost = pc.unique(costly["study_key"]).filter(pc.not_equal(pc.unique(costly["study_key"]), ""))
    gone = pc.is_in(examples.select(["study_key"])["study_key"], value_set=lost)
    refused = refusals_of(examples.filter(gone), "bad-study")
    # A file of several frames is refused once.
    once = first_equal(codes(refused["source_key"])) == np.arange(refused.num_rows)
    return gone, refused.filter(pa.array(once))


def refusals_of(examples: LazyRows, reason: str | pa.Array, detail: str | pa.ChunkedArray = "") -> pa.Table:
    """Return refusals of the files of examples."""
    rows = examples.select([name for name in REFUSALS.names if name not in ("reason", "detail")])
    for name, value in (("reason", reason), ("detail", detail)):
        column = pa.repeat(value, rows.num_rows) if isinstance(value, str) else value
        rows = rows.append_column(name, column)
    return concat([rows], REFUSALS)


def concat(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return tables one behind the other, each with the columns of `schema`."""
    return pa.concat_tables(
        [schema.empty_table(), *(table.select(schema.names).cast(schema) for table in tables)]
    )


def concat_columns(columns: Iterable[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return columns of texts one behind the other."""
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())


def codes(column: Column) -> Codes:
    """Return a number from 0 on for each value, in the order in which they first occur; -1 where there is none."""
    whole = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    return np.asarray(whole.combine_chunks().dictionary_encode().indices.fill_null(-1), np.int64)


def first_equal(numbers: Codes) -> Codes:
    """Return for each number the index of the first that is equal.

    >>> first_equal(np.array([7, 3, 7, 3]))
    array([0, 1, 0, 1])
    """
    at = np.empty(numbers.max(initial=-1) + 1, np.int64)
    # Backwards, so that the first is written last.
    at[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return at[numbers]
