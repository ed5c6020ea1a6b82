"""Owns which rows of a dataset stand, and which are refused beside the others.

Nothing here makes an object of a row: a dataset may have ten million.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.tables.lazy_rows import Blocks
from imaging.dataset.tables.schemas import REFUSALS
from imaging.refusal_reasons import IGNORED, NO_LOSS

CODES = NDArray[np.int64]


def merge(examples: Blocks, turns: CODES, *, drop_equal_pixels: bool) -> tuple[Blocks, pa.Table]:
    """Return the examples that stand, and a refusal for each repeated instance: whose turn is first is kept.

    The same pixels under two SOPInstanceUIDs could end on both sides of a split, so the later one is refused
    where splits are drawn here (`drop_equal_pixels`), and kept where the source fixes them.
    """
    told = examples.select(["instance_key", "pixel_blake3"])
    order = np.argsort(turns, kind="stable")
    instances, pixels = codes(told["instance_key"])[order], codes(told["pixel_blake3"])[order]
    first = _first(instances)
    repeated = first != np.arange(len(first))
    same = pixels[first] == pixels
    reason = np.where(repeated, np.where(same, "duplicate-instance", "conflicting-instance"), "")
    if drop_equal_pixels:
        # Of those alone that are no repetition: a refused copy does not hold its pixels.
        at = np.flatnonzero(~repeated)
        first[at] = at[_first(pixels[at])]
        reason[at[first[at] != at]] = "duplicate-pixels"
    refused = np.empty(len(first), np.bool_)
    refused[order] = reason != ""
    at = np.flatnonzero(reason != "")
    # As they lie, and not by their turns.
    at = at[np.argsort(order[at])]
    details = instance_words(told["instance_key"].take(pa.array(order[first[at]])))
    repeats = refusals_of(examples.only(pa.array(refused)), reason[at], details)
    return examples.only(pa.array(~refused)), repeats


def those(table: pa.Table, which: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows of a table that a mask names; batches of which all stay, which are most, are not copied."""
    mask = which.combine_chunks() if isinstance(which, pa.ChunkedArray) else which
    kept, start = [], 0
    for batch in table.to_batches():
        here = mask.slice(start, batch.num_rows)
        start += batch.num_rows
        kept.append(batch if here.true_count == len(here) else batch.filter(here))
    return pa.Table.from_batches(kept, table.schema)


def instance_words(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return how a refusal names the instance that it repeats."""
    return pc.binary_join_element_wise("instance", pc.utf8_slice_codeunits(keys, 0, 12), " ")


def studies_lost(examples: Blocks, refusals: pa.Table) -> tuple[pa.Array, pa.Table]:
    """Refuse what is left of a study of which a slice is bad (the policy drop-study): tell which, and the refusals."""
    harmless = pa.array(["", *IGNORED, *NO_LOSS])
    costly = refusals.filter(pc.invert(pc.is_in(refusals["reason"], value_set=harmless)))
    lost = pc.unique(costly["study_key"]).filter(pc.not_equal(pc.unique(costly["study_key"]), ""))
    gone = pc.is_in(examples.select(["study_key"])["study_key"], value_set=lost)
    refused = refusals_of(examples.only(gone), "bad-study")
    # A file of several frames is refused once.
    once = _first(codes(refused["source_key"])) == np.arange(refused.num_rows)
    return gone, refused.filter(pa.array(once))


def refusals_of(
    examples: Blocks, reason: str | NDArray[np.str_], detail: str | pa.ChunkedArray = ""
) -> pa.Table:
    """Return refusals of the files of examples."""
    told = {"reason": reason, "detail": detail}
    own = examples.select([name for name in REFUSALS.names if name not in told])
    columns = [
        _column(told[name], examples.num_rows) if name in told else own[name] for name in REFUSALS.names
    ]
    return pa.table(columns, schema=REFUSALS)


def concat(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return tables one behind the other, each with the columns of `schema`."""
    return pa.concat_tables(
        [schema.empty_table(), *(table.select(schema.names).cast(schema) for table in tables)]
    )


def together(columns: Iterable[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return columns of texts one behind the other."""
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())


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
