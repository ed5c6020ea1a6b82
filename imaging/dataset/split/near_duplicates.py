"""Near duplicates by the distance of fingerprints: pairs of images, groups of patients, and overlaps of splits."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imaging.dataset.split.fingerprint import as_column, flat
from imaging.dataset.tables.row_operations import Column, codes, first_equal

if TYPE_CHECKING:
    # A night with nothing new compares nothing, and scipy takes half a second to load.
    from scipy.spatial import cKDTree

Fingerprints = NDArray[np.uint8]
RowNumbers = NDArray[np.int64]
Pairs = NDArray[np.int64]
Points = NDArray[np.float64]

DISTANCE = 16.0
"""Fingerprints no farther apart are of one image. The measure goes to 508: other patients' slices of ct-contrast are
166 apart or more, the radiographs of pneumoniamnist 84; see `bench.near_duplicates`."""

REACH = DISTANCE + 0.05
"""A little more, for what floating point rounds."""
AXES = 8
"""Directions of the first search: no pair is farther apart in them than it is, so none is missed."""
SAMPLE = 5_000
"""Rows that the directions are chosen by."""
CROWDS = (16, 128, 512)
"""Neighbours that are searched for; rows with more are searched again. Of more than the last number, only the nearest
are taken: a scan of a thousand almost equal frames must not cost a million pairs."""
AT_ONCE = 2**16
"""Neighbours that are searched for at a time."""
MEASURED = 2**10
"""Fingerprints that are measured at a time, so few that they stay in a core's own cache."""
SLAB = 2**13
"""Rows that are searched for at a time, or a few more: beside each other along the longest axis."""
SLABS = 64
"""No more of them, however many the rows: each is looked for in what is a REACH beyond it too."""

ROW_OVERLAPS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("other", pa.int64(), nullable=False),
        pa.field("distance", pa.float64()),
    ]
)
"""Two rows in different splits: near duplicates of two patients, or, without a distance, rows of one patient."""


def near_pairs(fingerprints: Fingerprints, others: Fingerprints | None = None) -> Pairs:
    """Return (pairs, 2) rows of `fingerprints` and of `others`, or of one another, that show one image; sorted.

    Rows with equal fingerprints are as many pairs as there are rows, not as their square: where sets of equal rows
    are near each other, the first of either set is paired with all of the other. Flat images have no pairs.
    """
    mine = _Distinct(fingerprints, np.arange(len(fingerprints)))
    if others is not None:
        return _ordered(_all(_paired(mine, _Distinct(others, np.arange(len(others))))))
    pairs = _all(_paired(mine, mine))
    return _unordered(pairs[pairs[:, 0] != pairs[:, 1]])


def linked_groups(
    fingerprints: Fingerprints, patients: RowNumbers, new: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the number of each patient's group: those who share near duplicates are of one, and belong in one split.

    `patients` has the number of each row's patient, from 0 on; rows of -1 are left out. Where `new` marks the new
    patients, links between two known ones are not searched.
    """
    groups = np.arange(int(patients.max(initial=-1)) + 1)
    news = patients >= 0 if new is None else (patients >= 0) & new[patients]
    came, were = (_Distinct(fingerprints, np.flatnonzero(rows)) for rows in (news, ~news & (patients >= 0)))
    # All pairs of a night may take more memory than all else: they are linked slab by slab.
    for pairs in chain(_paired(came, came), _paired(came, were)):
        groups = _linked(groups, patients[pairs])
    return np.asarray(groups, np.int64)


def _linked(groups: NDArray[np.int64], pairs: Pairs) -> NDArray[np.int64]:
    """Return the groups of patients, of whom these pairs are of one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, two = groups[pairs].T
    links = coo_array((np.ones(len(one), np.bool_), (one, two)), shape=(len(groups), len(groups)))
    return np.asarray(connected_components(links, directed=False)[1][groups], np.int64)


def row_overlaps(fingerprints: Fingerprints, patients: Column, splits: Column) -> pa.Table:
    """Return a table `ROW_OVERLAPS` of near duplicates whose patients and splits differ, and of patients in two splits.

    Rows without a split are left out.
    """
    patient, split = codes(patients), codes(splits)
    near: list[Pairs] = []
    # Rows that ask cost more than rows that are searched: the smallest split is searched for in all others.
    smallest = np.argsort(np.bincount(split[split >= 0]), kind="stable")
    for number, name in enumerate(smallest):
        here, rest = np.flatnonzero(split == name), np.flatnonzero(np.isin(split, smallest[number + 1 :]))
        near.extend(_paired(_Distinct(fingerprints, here), _Distinct(fingerprints, rest)))
    pairs = _unordered(_all(near))
    pairs = pairs[patient[pairs[:, 0]] != patient[pairs[:, 1]]]
    both = _in_two_splits(patient, split)
    apart = np.sqrt(_squares(fingerprints, fingerprints, pairs), dtype=np.float64)
    distances = [*apart.tolist(), *[None] * len(both)]
    rows = np.concatenate([pairs, both])
    return pa.table({"row": rows[:, 0], "other": rows[:, 1], "distance": distances}, schema=ROW_OVERLAPS)


def unique_sorted(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the different numbers in their order; `np.unique` takes ten times as long."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=ordered[:1] - 1) > 0]


def _all(parts: Iterable[Pairs]) -> Pairs:
    return np.concatenate([np.empty((0, 2), np.int64), *parts])


def _unordered(pairs: Pairs) -> Pairs:
    """Return pairs of rows of one set, each once, with the lower row first."""
    return _ordered(np.sort(pairs, axis=1))


def _ordered(pairs: Pairs) -> Pairs:
    """Return each pair once, in order: as one number, for sorting rows takes several times as long."""
    width = int(pairs.max(initial=0)) + 1
    return np.stack(np.divmod(unique_sorted(pairs[:, 0] * width + pairs[:, 1]), width), axis=1)


def _in_two_splits(patient: NDArray[np.int64], split: NDArray[np.int64]) -> Pairs:
    """Return pairs of the first row of a patient, and of the first in each other split of that patient."""
    placed = np.flatnonzero(split >= 0)
    first = placed[np.unique(patient[placed], return_index=True)[1]]
    in_split = patient[placed] * (split.max(initial=0) + 1) + split[placed]
    each = placed[np.unique(in_split, return_index=True)[1]]
    home = first[np.searchsorted(patient[first], patient[each])]
    elsewhere = split[home] != split[each]
    return np.stack([home[elsewhere], each[elsewhere]], axis=1)


class _Distinct:
    """Different fingerprints of some rows, without flat ones: the `first` row of each, and the `count` of its rows."""

    def __init__(self, fingerprints: Fingerprints, rows: RowNumbers) -> None:
        self.fingerprints = fingerprints
        used = np.concatenate([rows[:0], *(some[~flat(fingerprints[some])] for some in _parts(rows))])
        same = _first_equal_rows(fingerprints, used)
        firsts = np.flatnonzero(same == np.arange(len(same)))
        self.first = used[firsts]
        self.count = np.bincount(same)[firsts].astype(np.int64)
        self._sorted: RowNumbers = used[np.argsort(same, kind="stable")]
        self._start = np.cumsum(self.count) - self.count

    def rows(self, which: RowNumbers) -> RowNumbers:
        """Return all rows of these fingerprints, one after the other."""
        count = self.count[which]
        within = np.arange(count.sum()) - (np.cumsum(count) - count).repeat(count)
        rows: RowNumbers = self._sorted[self._start[which].repeat(count) + within]
        return rows

    def along(self, axes: NDArray[np.float32], which: RowNumbers) -> Points:
        """Return (n, axes) coordinates of these fingerprints."""
        points = np.empty((len(which), len(axes)))
        for part, some in zip(_parts(points), _parts(self.first[which]), strict=True):
            # Not by BLAS: its threads would wait busily for so little, on the cores where trees are searched.
            part[:] = np.einsum("ij,kj->ik", self.fingerprints[some].astype(np.float32), axes)
        return points


def _parts(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield MEASURED of these at a time."""
    return (rows[start : start + MEASURED] for start in range(0, len(rows), MEASURED))


def _first_equal_rows(fingerprints: Fingerprints, rows: RowNumbers) -> RowNumbers:
    """Return for each of these rows the index of the first that is equal."""
    # Few rows share a checksum, and only they are compared whole: a table of all takes several times their memory.
    integers = (fingerprints[some].view(np.uint64) for some in _parts(rows))
    sums = np.concatenate(
        [np.empty(0, np.uint64), *(np.bitwise_xor.reduce(some, axis=1) for some in integers)]
    )
    order = np.argsort(sums)
    again = np.flatnonzero(np.diff(sums[order]) == 0)
    shared = unique_sorted(order[np.concatenate([again, again + 1])])
    first = np.arange(len(rows))
    first[shared] = shared[first_equal(codes(as_column(fingerprints[rows[shared]])))]
    return first


def _paired(mine: _Distinct, theirs: _Distinct) -> Iterator[Pairs]:
    """Yield the rows of near pairs, or of one set with itself, slab by slab."""
    for pairs in _search(mine, theirs):
        left, right = (_unordered(pairs) if mine is theirs else pairs).T
        to_all = np.stack([mine.first[left].repeat(theirs.count[right]), theirs.rows(right)], axis=1)
        left, right = left[mine.count[left] > 1], right[mine.count[left] > 1]
        of_all = np.stack([mine.rows(left), theirs.first[right].repeat(mine.count[left])], axis=1)
        yield np.concatenate([to_all, of_all])


def _search(mine: _Distinct, theirs: _Distinct) -> Iterator[Pairs]:
    """Yield pairs within DISTANCE, slab by slab along the longest axis; where both are the same, each once or twice."""
    if not len(mine.first) or not len(theirs.first):
        return
    among, axes = mine is theirs, _axes(theirs)
    beside = theirs.along(axes[-1:], np.arange(len(theirs.first)))[:, 0]
    at = beside if among else mine.along(axes[-1:], np.arange(len(mine.first)))[:, 0]
    edges = np.quantile(at, np.linspace(0, 1, min(len(at) // SLAB + 1, SLABS) + 1))

    def leaves(some: _Distinct, rows: RowNumbers) -> RowNumbers:
        return np.asarray(rows[_tree(some.along(axes, rows)).indices])

    def within(low: float, high: float) -> Pairs:
        # Of one set, rows that lie before are left out: they were searched for themselves. That halves the search.
        reached = (beside >= (low if among else low - REACH)) & (beside <= high + REACH)
        rows, places = np.flatnonzero((at >= low) & (at < high)), np.flatnonzero(reached)
        # By leaves, what is near in space is near in memory too, whatever order the rows came in: a third of the
        # time, unless few rows are searched for.
        if 8 * len(rows) > len(places):
            places = leaves(theirs, places)
            rows = places[at[places] < high] if among else leaves(mine, rows)
        within_distance: list[Pairs] = []
        tree = _tree(theirs.along(axes, places))
        for near in _near(lambda some: mine.along(axes, some), rows, tree):
            pairs = np.stack([near[:, 0], places[near[:, 1]]], axis=1)
            within_distance.append(pairs[_apart(mine, theirs, pairs) <= DISTANCE**2])
        return _all(within_distance)

    # While one slab is searched, another is measured: on all cores, and no more than two are in memory.
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(within, edges[:-1], [*edges[1:-1], np.inf])


def _near(along: Callable[[RowNumbers], Points], rows: RowNumbers, tree: "cKDTree") -> Iterator[Pairs]:
    """Yield these rows with the points of a tree within REACH, in parts; of too many points, the nearest."""
    for most in CROWDS:
        crowded = []
        for some in np.array_split(rows, len(rows) * most // AT_ONCE + 1):
            near = tree.query(along(some), k=most, distance_upper_bound=REACH, workers=-1)[1]
            full = (near[:, -1] < tree.n) & (most < CROWDS[-1])
            crowded.append(some[full])
            at, place = np.nonzero((near < tree.n) & ~full[:, None])
            yield np.stack([some[at], near[at, place]], axis=1)
        rows = np.concatenate(crowded)


def _tree(points: Points) -> "cKDTree":
    from scipy.spatial import cKDTree

    return cKDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)


def _axes(values: _Distinct) -> NDArray[np.float32]:
    """Return (AXES, bytes) orthonormal directions in which these values differ most, the longest last."""
    some = values.first[:: len(values.first) // SAMPLE + 1]
    sample = values.fingerprints[some].astype(np.float64)
    sample -= sample.mean(axis=0)
    return np.linalg.eigh(sample.T @ sample)[1].T[-AXES:].astype(np.float32, order="C")


def _apart(mine: _Distinct, theirs: _Distinct, pairs: Pairs) -> NDArray[np.float32]:
    """Return the squared distance of each pair of fingerprints."""
    rows = np.stack([mine.first[pairs[:, 0]], theirs.first[pairs[:, 1]]], axis=1)
    return _squares(mine.fingerprints, theirs.fingerprints, rows)


def _squares(fingerprints: Fingerprints, others: Fingerprints, pairs: Pairs) -> NDArray[np.float32]:
    """Return the squared Euclidean distance of each pair: whole numbers below 2**24, and so exact."""
    apart = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), MEASURED):
        one, two = pairs[start : start + MEASURED].T
        difference: NDArray[Any] = np.subtract(fingerprints[one], others[two], dtype=np.float32)
        apart[start : start + MEASURED] = np.einsum("ij,ij->i", difference, difference)
    return apart
