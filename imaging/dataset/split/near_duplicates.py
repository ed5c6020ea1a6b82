"""Owns what may leak from one side of a split to another: near duplicates among patients, found by fingerprint."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from imaging.dataset.split.fingerprint import as_column, flat

Fingerprints = NDArray[np.uint8]
Rows = NDArray[np.int64]
Pairs = NDArray[np.int64]
Points = NDArray[np.float64]
Column: TypeAlias = Sequence[str | None] | pa.Array | pa.ChunkedArray

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
"""Neighbours asked for; rows with more are asked again. Where there are more than the last, the nearest are looked
at: a scan of a thousand almost equal frames must not cost a million pairs."""
AT_ONCE = 2**16
"""Neighbours that are asked for at a time."""
MEASURED = 2**10
"""Fingerprints that are measured at a time, so few that they stay in a core's own cache."""
SLAB = 2**13
"""Rows that are searched for at a time, or a few more: beside each other along the longest axis."""
SLABS = 64
"""No more of them, however many the rows: each is looked for in what is a REACH beyond it too."""

LEAKS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("other", pa.int64(), nullable=False),
        pa.field("distance", pa.float64()),
    ]
)
"""Two rows on different sides: near duplicates of two patients, or, without a distance, one patient's."""


def near_pairs(fingerprints: Fingerprints, others: Fingerprints | None = None) -> Pairs:
    """Return (pairs, 2) rows of `fingerprints` and of `others`, or of one another, that show one image; sorted.

    Rows with equal fingerprints are as many pairs as there are rows, not as their square: where sets of equal rows
    are near each other, the first of either set is paired with all of the other. Flat images have no pairs.
    """
    mine = _Distinct(fingerprints, np.arange(len(fingerprints)))
    if others is not None:
        return _ordered(_all(_paired(mine, _Distinct(others, np.arange(len(others))))))
    pairs = _all(_paired(mine, mine))
    return _once(pairs[pairs[:, 0] != pairs[:, 1]])


def linked(
    fingerprints: Fingerprints, patients: Rows, new: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the group of each patient: who share near duplicates are of one, and belong on one side.

    `patients` gives the number of each row's patient, from 0 on; rows of -1 are looked at by none. Where `new` says
    which patients are, links between two who are not are not looked for.
    """
    groups = np.arange(int(patients.max(initial=-1)) + 1)
    news = patients >= 0 if new is None else (patients >= 0) & new[patients]
    came, were = (_Distinct(fingerprints, np.flatnonzero(rows)) for rows in (news, ~news & (patients >= 0)))
    # All pairs of a night may take more memory than all else: they are linked slab by slab.
    for pairs in chain(_paired(came, came), _paired(came, were)):
        one, two = groups[patients[pairs]].T
        links = coo_array((np.ones(len(one), np.bool_), (one, two)), shape=(len(groups), len(groups)))
        groups = connected_components(links, directed=False)[1][groups]
    return np.asarray(groups, np.int64)


def leaks(fingerprints: Fingerprints, patients: Column, sides: Column) -> pa.Table:
    """Return a table `LEAKS` of near duplicates whose patients and sides differ, and of patients on two sides.

    Rows without a side are on none.
    """
    patient, side = numbers(patients), numbers(sides)
    near: list[Pairs] = []
    # What is asked costs more than what it is looked for in: the smallest side asks all others.
    smallest = np.argsort(np.bincount(side[side >= 0]), kind="stable")
    for number, name in enumerate(smallest):
        here, rest = np.flatnonzero(side == name), np.flatnonzero(np.isin(side, smallest[number + 1 :]))
        near.extend(_paired(_Distinct(fingerprints, here), _Distinct(fingerprints, rest)))
    found = _once(_all(near))
    found = found[patient[found[:, 0]] != patient[found[:, 1]]]
    both = _on_two_sides(patient, side)
    apart = np.sqrt(_squares(fingerprints, fingerprints, found), dtype=np.float64)
    distances = [*apart.tolist(), *[None] * len(both)]
    rows = np.concatenate([found, both])
    return pa.table({"row": rows[:, 0], "other": rows[:, 1], "distance": distances}, schema=LEAKS)


def once(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each of these numbers once, in order; `np.unique` takes ten times as long."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=ordered[:1] - 1) > 0]


def _all(parts: Iterable[Pairs]) -> Pairs:
    return np.concatenate([np.empty((0, 2), np.int64), *parts])


def _once(pairs: Pairs) -> Pairs:
    """Return pairs of one set of rows, each once, its first row first."""
    return _ordered(np.sort(pairs, axis=1))


def _ordered(pairs: Pairs) -> Pairs:
    """Return each pair once, in order: as one number, for sorting rows takes several times as long."""
    width = int(pairs.max(initial=0)) + 1
    return np.stack(np.divmod(once(pairs[:, 0] * width + pairs[:, 1]), width), axis=1)


def _on_two_sides(patient: NDArray[np.int64], side: NDArray[np.int64]) -> Pairs:
    """Return the first row of each patient, and the first of that patient's on each other side."""
    placed = np.flatnonzero(side >= 0)
    first = placed[np.unique(patient[placed], return_index=True)[1]]
    on_side = patient[placed] * (side.max(initial=0) + 1) + side[placed]
    each = placed[np.unique(on_side, return_index=True)[1]]
    home = first[np.searchsorted(patient[first], patient[each])]
    elsewhere = side[home] != side[each]
    return np.stack([home[elsewhere], each[elsewhere]], axis=1)


def numbers(column: Column) -> NDArray[np.int64]:
    """Return a number for each value of a column, the same where the value is, from 0 on; -1 where there is none."""
    whole = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    return np.asarray(whole.combine_chunks().dictionary_encode().indices.fill_null(-1), np.int64)


class _Distinct:
    """Different ones of some rows that show something: the `first` row of each, and their `count`."""

    def __init__(self, fingerprints: Fingerprints, rows: Rows) -> None:
        self.fingerprints = fingerprints
        told = np.concatenate([rows[:0], *(some[~flat(fingerprints[some])] for some in _parts(rows))])
        same = _first_equal(fingerprints, told)
        firsts = np.flatnonzero(same == np.arange(len(same)))
        self.first = told[firsts]
        self.count = np.bincount(same)[firsts].astype(np.int64)
        self._sorted: Rows = told[np.argsort(same, kind="stable")]
        self._start = np.cumsum(self.count) - self.count

    def rows(self, which: Rows) -> Rows:
        """Return all rows of these, one after the other."""
        count = self.count[which]
        within = np.arange(count.sum()) - (np.cumsum(count) - count).repeat(count)
        rows: Rows = self._sorted[self._start[which].repeat(count) + within]
        return rows

    def along(self, axes: NDArray[np.float32], which: Rows) -> Points:
        """Return (n, axes) coordinates of these."""
        points = np.empty((len(which), len(axes)))
        for told, some in zip(_parts(points), _parts(self.first[which]), strict=True):
            # Not by BLAS: its threads would wait busily for so little, on the cores where trees are searched.
            told[:] = np.einsum("ij,kj->ik", self.fingerprints[some].astype(np.float32), axes)
        return points


def _parts(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield MEASURED of these at a time."""
    return (rows[start : start + MEASURED] for start in range(0, len(rows), MEASURED))


def _first_equal(fingerprints: Fingerprints, rows: Rows) -> Rows:
    """Return for each of these rows the place of the first that is equal."""
    # Few rows have another's word, and only they are compared whole: a table of all takes several times their memory.
    words = np.concatenate([np.empty(0, np.uint64), *(_words(fingerprints[some]) for some in _parts(rows))])
    order = np.argsort(words)
    again = np.flatnonzero(np.diff(words[order]) == 0)
    shared = once(order[np.concatenate([again, again + 1])])
    codes = as_column(fingerprints[rows[shared]]).dictionary_encode().indices.to_numpy()
    first = np.arange(len(rows))
    first[shared] = shared[np.unique(codes, return_index=True)[1][codes]]
    return first


def _words(fingerprints: Fingerprints) -> NDArray[np.uint64]:
    """Return a number for each fingerprint; equal ones have the same, others hardly ever."""
    return np.asarray(np.bitwise_xor.reduce(fingerprints.view(np.uint64), axis=1))


def _paired(mine: _Distinct, theirs: _Distinct) -> Iterator[Pairs]:
    """Yield the rows of near pairs, or of one set with itself, slab by slab."""
    for found in _search(mine, theirs):
        left, right = (_once(found) if mine is theirs else found).T
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

    def leaves(some: _Distinct, rows: Rows) -> Rows:
        return np.asarray(rows[_tree(some.along(axes, rows)).indices])

    def within(low: float, high: float) -> Pairs:
        # Of one set, none that lie before are looked at: they have asked themselves. That halves the search.
        reached = (beside >= (low if among else low - REACH)) & (beside <= high + REACH)
        rows, places = np.flatnonzero((at >= low) & (at < high)), np.flatnonzero(reached)
        # By leaves, what is near in space is near in memory too, whatever order the rows came in: a third of the
        # time, unless few ask.
        if 8 * len(rows) > len(places):
            places = leaves(theirs, places)
            rows = places[at[places] < high] if among else leaves(mine, rows)
        told: list[Pairs] = []
        tree = _tree(theirs.along(axes, places))
        for near in _near(lambda some: mine.along(axes, some), rows, tree):
            pairs = np.stack([near[:, 0], places[near[:, 1]]], axis=1)
            told.append(pairs[_apart(mine, theirs, pairs) <= DISTANCE**2])
        return _all(told)

    # While one is searched, another is measured: on all cores, and never more in memory than of two.
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(within, edges[:-1], [*edges[1:-1], np.inf])


def _near(along: Callable[[Rows], Points], rows: Rows, tree: cKDTree) -> Iterator[Pairs]:
    """Yield these rows with the points of a tree within REACH, in parts: of those in a crowd, the nearest."""
    for most in CROWDS:
        crowded = []
        for some in np.array_split(rows, len(rows) * most // AT_ONCE + 1):
            near = tree.query(along(some), k=most, distance_upper_bound=REACH, workers=-1)[1]
            full = (near[:, -1] < tree.n) & (most < CROWDS[-1])
            crowded.append(some[full])
            at, place = np.nonzero((near < tree.n) & ~full[:, None])
            yield np.stack([some[at], near[at, place]], axis=1)
        rows = np.concatenate(crowded)


def _tree(points: Points) -> cKDTree:
    return cKDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)


def _axes(values: _Distinct) -> NDArray[np.float32]:
    """Return (AXES, bytes) orthonormal directions in which these values differ most, the longest last."""
    some = values.first[:: len(values.first) // SAMPLE + 1]
    sample = values.fingerprints[some].astype(np.float64)
    sample -= sample.mean(axis=0)
    return np.linalg.eigh(sample.T @ sample)[1].T[-AXES:].astype(np.float32, order="C")


def _apart(mine: _Distinct, theirs: _Distinct, pairs: Pairs) -> NDArray[np.float32]:
    """Return the squared distance of each pair of these."""
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
