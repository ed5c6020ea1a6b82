"""Owns what may leak from one side of a split to another: near duplicates among patients, found by fingerprint."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from imaging.dataset.fingerprint import as_column, flat

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
AT_ONCE = 2**18
"""Neighbours that are asked for at a time."""
MEASURED = 2**14
"""Fingerprints that are measured at a time, so few that they stay in a core's own cache."""
SLAB = 2**17
"""Rows that are searched for at a time, or a few more: beside each other along the longest axis."""

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
    mine = _Distinct(fingerprints)
    theirs = mine if others is None else _Distinct(others)
    found = np.concatenate([np.empty((0, 2), np.int64), *_search(mine.values, theirs.values)])
    left, right = (found if others is not None else _once(found)).T
    pairs = np.concatenate(
        [
            np.stack([mine.first[left].repeat(theirs.count[right]), theirs.rows(right)], axis=1),
            np.stack([mine.rows(left), theirs.first[right].repeat(mine.count[left])], axis=1),
        ]
    )
    return _ordered(pairs) if others is not None else _once(pairs[pairs[:, 0] != pairs[:, 1]])


def linked(
    fingerprints: Fingerprints, patients: NDArray[np.int64], new: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the group of each patient: who share near duplicates are of one, and belong on one side.

    `patients` gives the number of each row's patient, from 0 on. Where `new` says which rows are, links between two
    rows that are not are not looked for.
    """
    if new is None:
        pairs = near_pairs(fingerprints)
    else:
        came, were = np.flatnonzero(new), np.flatnonzero(~new)
        among, before = near_pairs(fingerprints[came]), near_pairs(fingerprints[came], fingerprints[were])
        pairs = np.concatenate([came[among], np.stack([came[before[:, 0]], were[before[:, 1]]], axis=1)])
    one, two = patients[pairs].T
    count = int(patients.max(initial=-1)) + 1
    links = coo_array((np.ones(len(one), np.bool_), (one, two)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def leaks(fingerprints: Fingerprints, patients: Column, sides: Column) -> pa.Table:
    """Return a table `LEAKS` of near duplicates whose patients and sides differ, and of patients on two sides.

    Rows without a side are on none.
    """
    patient, side = numbers(patients), numbers(sides)
    near = [np.empty((0, 2), np.int64)]
    # What is asked costs more than what it is looked for in: the smallest side asks all others.
    smallest = np.argsort(np.bincount(side[side >= 0]), kind="stable")
    for number, name in enumerate(smallest):
        here, rest = np.flatnonzero(side == name), np.flatnonzero(np.isin(side, smallest[number + 1 :]))
        pairs = near_pairs(fingerprints[here], fingerprints[rest])
        near.append(np.stack([here[pairs[:, 0]], rest[pairs[:, 1]]], axis=1))
    found = _once(np.concatenate(near))
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
    """Different fingerprints of images that show something: `values`, the `first` row of each and their `count`."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        told = np.flatnonzero(~flat(fingerprints))
        codes = as_column(fingerprints[told]).dictionary_encode().indices.to_numpy()
        by_code = np.argsort(codes, kind="stable")
        self.count = np.bincount(codes).astype(np.int64)
        self._sorted: NDArray[np.int64] = told[by_code]
        self._start = np.cumsum(self.count) - self.count
        self.first = self._sorted[self._start]
        self.values = fingerprints[self.first]

    def rows(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return all rows of these, one after the other."""
        count = self.count[which]
        within = np.arange(count.sum()) - (np.cumsum(count) - count).repeat(count)
        rows: Pairs = self._sorted[self._start[which].repeat(count) + within]
        return rows


def _search(values: Fingerprints, others: Fingerprints) -> Iterator[Pairs]:
    """Yield pairs within DISTANCE, slab by slab; where `others` are the `values`, each once or twice."""
    if not len(values) or not len(others):
        return
    among, axes = values is others, _axes(others)
    there = _along(others, axes)
    asked = there if among else _along(values, axes)

    def within(slab: tuple[Rows, Rows]) -> Pairs:
        rows, places = slab
        told = [np.empty((0, 2), np.int64)]
        for near in _near(asked[rows], there[places]):
            pairs = np.stack([rows[near[:, 0]], places[near[:, 1]]], axis=1)
            told.append(pairs[_squares(values, others, pairs) <= DISTANCE**2])
        return np.concatenate(told)

    # While one is searched, another is measured: on all cores, and never more in memory than of two.
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(within, _slabs(asked, there, among=among))


def _slabs(asked: Points, there: Points, *, among: bool) -> Iterator[tuple[Rows, Rows]]:
    """Yield rows that lie beside each other along the longest axis, and all places that are in reach of them.

    Of one set of points, none that lie before: they have asked themselves. That halves the search.
    """
    # By leaves, what is near in space is near in memory too, whatever order the rows came in: a third of the time,
    # unless few ask.
    places = _tree(there).indices if 8 * len(asked) > len(there) else np.arange(len(there))
    rows = places if among else _tree(asked).indices
    at, beside = asked[rows, -1], there[places, -1]
    edges = np.quantile(at, np.linspace(0, 1, len(rows) // SLAB + 2))
    for low, high in zip(edges[:-1], [*edges[1:-1], np.inf], strict=True):
        near = (beside >= (low if among else low - REACH)) & (beside <= high + REACH)
        yield rows[(at >= low) & (at < high)], places[near]


def _near(asked: Points, there: Points) -> Iterator[Pairs]:
    """Yield pairs of points within REACH, in parts: of those in a crowd, the nearest."""
    tree, rows = _tree(there), np.arange(len(asked))
    for most in CROWDS:
        crowded = []
        for some in np.array_split(rows, len(rows) * most // AT_ONCE + 1):
            near = tree.query(asked[some], k=most, distance_upper_bound=REACH, workers=-1)[1]
            full = (near[:, -1] < len(there)) & (most < CROWDS[-1])
            crowded.append(some[full])
            at, place = np.nonzero((near < len(there)) & ~full[:, None])
            yield np.stack([some[at], near[at, place]], axis=1)
        rows = np.concatenate(crowded)


def _tree(points: NDArray[np.float64]) -> cKDTree:
    return cKDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)


def _axes(values: Fingerprints) -> NDArray[np.float32]:
    """Return (bytes, AXES) orthonormal directions in which these values differ most."""
    sample = values[:: len(values) // SAMPLE + 1].astype(np.float64)
    sample -= sample.mean(axis=0)
    return np.linalg.eigh(sample.T @ sample)[1][:, -AXES:].astype(np.float32)


def _along(values: Fingerprints, axes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (n, AXES) coordinates."""
    parts = (
        values[start : start + MEASURED].astype(np.float32) @ axes
        for start in range(0, len(values), MEASURED)
    )
    return np.concatenate([np.empty((0, AXES)), *parts])


def _squares(fingerprints: Fingerprints, others: Fingerprints, pairs: Pairs) -> NDArray[np.float32]:
    """Return the squared Euclidean distance of each pair: whole numbers below 2**24, and so exact."""
    apart = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), MEASURED):
        one, two = pairs[start : start + MEASURED].T
        difference: NDArray[Any] = np.subtract(fingerprints[one], others[two], dtype=np.float32)
        apart[start : start + MEASURED] = np.einsum("ij,ij->i", difference, difference)
    return apart
