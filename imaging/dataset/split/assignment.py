"""Assignment of patients to splits: stratified by label and site, near duplicates together, and never changed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imaging.dataset.split.fingerprint import from_column
from imaging.dataset.split.near_duplicates import linked_groups, unique_sorted
from imaging.dataset.tables.row_operations import codes
from imaging.dataset.tables.schemas import TABLES


def draw_splits(examples: pa.Table, previous: pa.Table, shares: Mapping[str, float]) -> pa.Table:
    """Return the split of every patient for whom one was ever drawn: removed images or labels may come back.

    `previous` and the result are tables of splits, of `imaging.dataset.tables.schemas.TABLES`. Splits are drawn for
    patients with labelled examples of which the source fixes no split.
    """
    drawn = pc.and_(pc.is_valid(examples["label"]), pc.is_null(examples["source_split"]))
    names, patients = _ranked(examples["patient_key"], drawn)
    before = _known_splits(names, previous, list(shares))
    new = before < 0
    if not new.any():
        return previous
    labels, sites = (
        codes(_joined(*_ranked(examples[name], drawn), patients, len(names)))
        for name in ("label", "site_key")
    )
    # To pick the fingerprints of the drawn rows would be one copy more of most of the bytes.
    patient_of_row = np.full(len(examples), -1)
    patient_of_row[np.asarray(drawn)] = patients
    groups = linked_groups(from_column(examples["fingerprint"]), patient_of_row, new)
    splits = assign(_strata(labels, sites), before, list(shares.values()), groups)
    columns = [names.filter(pa.array(new)), pa.array(list(shares)).take(pa.array(splits[new]))]
    return pa.concat_tables([previous, pa.table(columns, schema=TABLES["splits"])])


def rarest_findings(
    patients: pa.ChunkedArray, findings: NDArray[np.int8], names: Sequence[str]
) -> pa.ChunkedArray:
    """Return for each row the stratum of its patient: the finding that fewest patients have; null where none is known.

    A patient who has several counts for the rarest, of which a split can lack least, as in iterative stratification
    (Sechidis et al. 2011). That a finding is absent counts as one too: else one that nearly all have could lack the few
    who have it not in a split.

    >>> findings = np.array([[1, 0], [0, 1], [1, 0]], np.int8)
    >>> rarest_findings(pa.chunked_array([["a", "a", "b"]]), findings, "fg").to_pylist()
    ['1g', '1g', '0g']
    """
    coded = patients.combine_chunks().dictionary_encode()
    of_row, count = np.asarray(coded.indices), len(coded.dictionary)
    strata, fewest = np.full(count, -1), np.full(count, np.iinfo(np.int64).max)
    sides = []
    for column in findings.T:
        have, lack = np.zeros((2, count), np.bool_)
        have[of_row[column == 1]] = lack[of_row[column == 0]] = True
        # Who has it in one image has it.
        sides.append((have, lack & ~have))
    for number, owners in enumerate(
        np.flatnonzero(side) for pair in zip(*sides, strict=True) for side in pair
    ):
        rarer = owners[len(owners) < fewest[owners]]
        strata[rarer], fewest[rarer] = number, len(owners)
    labels = [f"{value}{name}" for value in (1, 0) for name in names]
    known = pa.array(strata[of_row], mask=~(findings >= 0).any(axis=1))
    return pa.chunked_array([pa.array(labels, pa.string()).take(known)])


def assign(
    strata: NDArray[np.int64],
    before: NDArray[np.int64],
    shares: Sequence[float],
    groups: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the number of each patient's split; a patient who had one keeps it, whatever is new.

    The patients are in the order of their keyed pseudonyms, which is random and repeatable. `strata` (patients, 2) has
    the numbers of the coarse and the fine stratum of each: labels, and labels with the site. A new patient, who has -1
    in `before`, gets the split that is shortest in both. Patients of one group share images, and so their split, as far
    as they are new.

    >>> assign(np.array([[0, 1], [0, 1]]), np.array([1, -1]), [0.5, 0.5], np.array([0, 1]))
    array([1, 0])
    """
    counts = _counts(strata, before, len(shares))
    taken = np.full(int(groups.max(initial=-1)) + 1, -1)
    known, new = np.flatnonzero(before >= 0), np.flatnonzero(before < 0)
    # The first known patient of each group decides: the last that is written.
    taken[groups[known[::-1]]] = before[known[::-1]]
    of_group = taken.tolist()
    for group, (coarse, fine) in zip(groups[new].tolist(), strata[new].tolist(), strict=True):
        if of_group[group] < 0:
            of_group[group] = _shortest(counts[coarse], counts[fine], shares)
        counts[coarse][of_group[group]] += 1
        counts[fine][of_group[group]] += 1
    splits = before.copy()
    splits[new] = np.array(of_group, np.int64)[groups[new]]
    return splits


def _counts(strata: NDArray[np.int64], splits: NDArray[np.int64], count: int) -> list[list[int]]:
    """Return how many patients of each stratum are in each of `count` splits."""
    known = splits >= 0
    cells = (strata[known] * count + splits[known, None]).ravel()
    every = (int(strata.max(initial=-1)) + 1) * count
    counts: list[list[int]] = np.bincount(cells, minlength=every).reshape(-1, count).tolist()
    return counts


def _shortest(coarse: Sequence[int], fine: Sequence[int], shares: Sequence[float]) -> int:
    """Return the number of the split that is farthest below its share in two strata, with one more patient in each.

    >>> _shortest([3, 1], [2, 2], [0.5, 0.5])
    1
    """
    counts = [of_coarse + of_fine for of_coarse, of_fine in zip(coarse, fine, strict=True)]
    total = sum(counts) + 2
    short = [share * total - count for share, count in zip(shares, counts, strict=True)]
    return short.index(max(short))


def _known_splits(names: pa.StringArray, previous: pa.Table, splits: list[str]) -> NDArray[np.int64]:
    """Return the number of the split that each of these patients has; -1 where there is none yet."""
    at = pc.index_in(names, value_set=previous["patient_key"].combine_chunks())
    known = pc.index_in(previous["split"].combine_chunks(), value_set=pa.array(splits))
    return np.asarray(known.take(at).fill_null(-1), np.int64)


def _strata(labels: NDArray[np.int64], sites: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (patients, 2) numbers of the strata of each patient: its labels, and its labels and sites."""
    both = codes(pa.array(labels * len(labels) + sites))
    return np.stack([labels, labels.max(initial=0) + 1 + both], axis=1)


def _joined(
    values: pa.StringArray, rows: NDArray[np.int64], patients: NDArray[np.int64], count: int
) -> pa.StringArray:
    """Return the different values of each patient's rows as one text, in their order."""
    pairs = unique_sorted(patients * len(values) + rows)
    starts = np.searchsorted(pairs, np.arange(count + 1) * len(values))
    lists = pa.ListArray.from_arrays(starts.astype(np.int32), values.take(pa.array(pairs % len(values))))
    return pc.binary_join(lists, "|")


def _ranked(column: pa.ChunkedArray, drawn: pa.ChunkedArray) -> tuple[pa.StringArray, NDArray[np.int64]]:
    """Return the different values of the drawn rows of a column in their order, and the number of each row's value."""
    # Encoded before they are picked: so that no text is copied.
    encoded = column.dictionary_encode().filter(drawn).combine_chunks()
    numbers = np.asarray(encoded.indices)
    used = unique_sorted(numbers)
    values = encoded.dictionary.take(pa.array(used))
    order = pc.sort_indices(values)
    place = np.empty(len(encoded.dictionary), np.int64)
    place[used[np.asarray(order)]] = np.arange(len(order))
    return values.take(order), place[numbers]
