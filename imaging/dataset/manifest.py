"""Owns the rows of a dataset as tables: which of them stand, and which are refused beside the others.

Nothing here makes an object of a row: a dataset may have ten million.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.quarantine import IGNORED, NO_LOSS
from imaging.dataset.rows import REFUSALS

CODES = NDArray[np.int64]


def merge(examples: pa.Table, *, drop_equal_pixels: bool) -> tuple[pa.Table, pa.Table]:
    """Return the examples that stand, first come first kept, and a refusal for each repeated instance.

    The same pixels under two SOPInstanceUIDs could end on both sides of a split, so the later one is refused
    where splits are drawn here (`drop_equal_pixels`), and kept where the source fixes them.
    """
    instances, pixels = codes(examples["instance_key"]), codes(examples["pixel_blake3"])
    first = _first(instances)
    repeated = first != np.arange(len(first))
    same = pixels[first] == pixels
    reason = np.where(repeated, np.where(same, "duplicate-instance", "conflicting-instance"), "")
    if drop_equal_pixels:
        # Of those alone that are no repetition: a refused copy does not hold its pixels.
        at = np.flatnonzero(~repeated)
        first[at] = at[_first(pixels[at])]
        reason[at[first[at] != at]] = "duplicate-pixels"
    refused = reason != ""
    details = instance_words(examples["instance_key"].take(pa.array(first[refused])))
    repeats = refusals_of(examples.filter(pa.array(refused)), reason[refused], details)
    return those(examples, pa.array(~refused)), repeats


def those(table: pa.Table, which: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows of a table that a mask names; batches of which all stay, which are most, are not copied."""
    mask = which.combine_chunks() if isinstance(which, pa.ChunkedArray) else which
    kept, start = [], 0
    for batch in table.to_batches():
        here = mask.slice(start, batch.num_rows)
        start += batch.num_rows
        kept.append(batch if here.true_count == len(here) else batch.filter(here))
    return pa.Table.from_batches(kept, table.schema)


def in_order(table: pa.Table, place: pa.ChunkedArray) -> pa.Table:
    """Return a table by the place of each row, without a copy where its batches need only change theirs."""
    places, batches = place.to_numpy(), [batch for batch in table.to_batches() if batch.num_rows]
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    turns = sorted(range(len(batches)), key=lambda number: int(places[starts[number]]))
    turned = [np.empty(0, np.int64), *(places[starts[turn] : starts[turn + 1]] for turn in turns)]
    if (np.diff(np.concatenate(turned)) >= 0).all():
        return pa.Table.from_batches([batches[turn] for turn in turns], table.schema)
    return table.take(pa.array(np.argsort(places, kind="stable")))


def instance_words(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return how a refusal names the instance that it repeats."""
    return pc.binary_join_element_wise("instance", pc.utf8_slice_codeunits(keys, 0, 12), " ")


def drop_studies(examples: pa.Table, refusals: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Refuse what is left of a study of which a slice is bad: the policy drop-study."""
    harmless = pa.array(["", *IGNORED, *NO_LOSS])
    costly = refusals.filter(pc.invert(pc.is_in(refusals["reason"], value_set=harmless)))
    lost = pc.unique(costly["study_key"]).filter(pc.not_equal(pc.unique(costly["study_key"]), ""))
    gone = pc.is_in(examples["study_key"], value_set=lost)
    dropped = examples.filter(gone)
    # A file of several frames is refused once.
    files = dropped.take(np.flatnonzero(_first(codes(dropped["source_key"])) == np.arange(dropped.num_rows)))
    return those(examples, pc.invert(gone)), refusals_of(files, "bad-study")


def refusals_of(
    examples: pa.Table, reason: str | NDArray[np.str_], detail: str | pa.ChunkedArray = ""
) -> pa.Table:
    """Return refusals of the files of examples."""
    told = {"reason": reason, "detail": detail}
    columns = [
        _column(told[name], examples.num_rows) if name in told else examples[name] for name in REFUSALS.names
    ]
    return pa.table(columns, schema=REFUSALS)


def concat(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return tables one behind the other, each with the columns of `schema`."""
    return pa.concat_tables(
        [schema.empty_table(), *(table.select(schema.names).cast(schema) for table in tables)]
    )


def codes(column: pa.ChunkedArray) -> CODES:
    """Return a number for each value, the same for equal ones, in the order in which they first come."""
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)


def _first(numbers: CODES) -> CODES:
    """Return where each number stands first.

    >>> _first(np.array([7, 3, 7, 3]))
    array([0, 1, 0, 1])
    """
    at = np.empty(numbers.max(initial=-1) + 1, np.int64)
    # Backwards, so that the first is written last.
    at[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return at[numbers]


def _column(values: str | NDArray[np.str_] | pa.ChunkedArray, count: int) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, str):
        return pa.repeat(values, count)
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, pa.string())
