"""Owns which side each patient is on: who is known stays, whose images are alike stand together."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.split.assignment import assign
from imaging.dataset.split.fingerprint import from_column
from imaging.dataset.split.near_duplicates import linked, numbers, once
from imaging.dataset.tables.schemas import TABLES


def draw_sides(examples: pa.Table, previous: pa.Table, shares: Mapping[str, float]) -> pa.Table:
    """Return the split of every patient who ever had one: whose images or labels went may come back.

    `previous` and what is returned are tables of splits, of `imaging.dataset.tables.schemas.TABLES`.
    """
    drawn = pc.and_(pc.is_valid(examples["label"]), pc.is_null(examples["source_split"]))
    names, patients = _ranked(examples["patient_key"], drawn)
    before = _known(names, previous, list(shares))
    new = before < 0
    if not new.any():
        return previous
    labels, sites = (
        numbers(_together(*_ranked(examples[name], drawn), patients, len(names)))
        for name in ("label", "site_key")
    )
    # To pick the fingerprints of the drawn rows would be one copy more of most of the bytes.
    whose = np.full(len(examples), -1)
    whose[np.asarray(drawn)] = patients
    groups = linked(from_column(examples["fingerprint"]), whose, new)
    splits = assign(_strata(labels, sites), before, list(shares.values()), groups)
    columns = [names.filter(pa.array(new)), pa.array(list(shares)).take(pa.array(splits[new]))]
    return pa.concat_tables([previous, pa.table(columns, schema=TABLES["splits"])])


def _known(names: pa.StringArray, previous: pa.Table, splits: list[str]) -> NDArray[np.int64]:
    """Return the number of the split that each of these patients has; -1 for who has none yet."""
    at = pc.index_in(names, value_set=previous["patient_key"].combine_chunks())
    known = pc.index_in(previous["split"].combine_chunks(), value_set=pa.array(splits))
    return np.asarray(known.take(at).fill_null(-1), np.int64)


def _strata(labels: NDArray[np.int64], sites: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (patients, 2) numbers of the strata of each patient: its labels, and its labels and sites."""
    both = numbers(pa.array(labels * len(labels) + sites))
    return np.stack([labels, labels.max(initial=0) + 1 + both], axis=1)


def _together(
    values: pa.StringArray, rows: NDArray[np.int64], patients: NDArray[np.int64], count: int
) -> pa.StringArray:
    """Return the different values of each patient's rows as one, in their order."""
    pairs = once(patients * len(values) + rows)
    starts = np.searchsorted(pairs, np.arange(count + 1) * len(values))
    lists = pa.ListArray.from_arrays(starts.astype(np.int32), values.take(pa.array(pairs % len(values))))
    return pc.binary_join(lists, "|")


def _ranked(column: pa.ChunkedArray, drawn: pa.ChunkedArray) -> tuple[pa.StringArray, NDArray[np.int64]]:
    """Return the different values of the drawn rows of a column in their order, and the number of each row's."""
    # Encoded before they are picked: so that no text is copied.
    coded = column.dictionary_encode().filter(drawn).combine_chunks()
    codes = np.asarray(coded.indices)
    told = once(codes)
    values = coded.dictionary.take(pa.array(told))
    order = pc.sort_indices(values)
    place = np.empty(len(coded.dictionary), np.int64)
    place[told[np.asarray(order)]] = np.arange(len(order))
    return values.take(order), place[codes]
