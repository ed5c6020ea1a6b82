"""Near duplicates: as a plain search finds them, the groups of patients that they link, and overlaps of splits."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.copies import Images, chests, ct_contrast, pneumonia
from bench.near_duplicates import others
from imaging.dataset.split import near_duplicates
from imaging.dataset.split.fingerprint import ZERO, fingerprints
from imaging.dataset.split.near_duplicates import (
    DISTANCE,
    ROW_OVERLAPS,
    linked_groups,
    near_pairs,
    row_overlaps,
    unique_sorted,
)
from tests.public_images import write_digits


def clustered(rows: int, seed: int, width: int = 8) -> np.ndarray:
    """Return fingerprints in clusters, so that some are near each other, some equal and most far."""
    rng = np.random.default_rng(seed)
    middles = rng.integers(60, 190, (rows // 3 + 1, 64))
    moved = rng.integers(-width, width + 1, (rows, 64)) * rng.integers(0, 2, (rows, 1))
    return np.clip(middles[rng.integers(len(middles), size=rows)] + moved // 3, 0, 255).astype(np.uint8)


def far(rows: int) -> np.ndarray:
    """Return fingerprints of which no two are near."""
    return np.random.default_rng(1).integers(0, 256, (rows, 64), dtype=np.uint8)


def plainly(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return which pairs are near, by measuring all."""
    apart = np.linalg.norm(one[:, None].astype(float) - two[None], axis=2)
    return np.asarray(apart <= DISTANCE)


def components(pairs: np.ndarray, rows: int) -> list[int]:
    """Return the smallest row of each row's component."""
    names = list(range(rows))
    for _ in range(rows):
        for one, two in pairs.tolist():
            names[one] = names[two] = min(names[one], names[two])
    return names


@pytest.mark.slow
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 99))
def test_near_rows_are_paired_and_no_others(rows: int, more: int, seed: int) -> None:
    both = np.unique(clustered(rows + more, seed), axis=0)
    np.random.default_rng(seed).shuffle(both)
    one, two = both[: len(both) // 2], both[len(both) // 2 :]
    assert near_pairs(one, two).tolist() == np.argwhere(plainly(one, two)).tolist()


@pytest.mark.slow
@given(st.integers(0, 60), st.integers(0, 99))
def test_near_ones_of_one_set_are_given_once(rows: int, seed: int) -> None:
    values = np.unique(clustered(rows, seed), axis=0)
    assert near_pairs(values).tolist() == np.argwhere(np.triu(plainly(values, values), 1)).tolist()


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(0, 99))
def test_equal_rows_hang_together_as_if_all_pairs_were_given(rows: int, seed: int) -> None:
    values = clustered(rows, seed, width=3)
    every = np.argwhere(plainly(values, values))
    assert components(near_pairs(values), rows) == components(every, rows)


def test_equal_rows_are_as_many_pairs_as_rows() -> None:
    values = np.concatenate([far(5), np.repeat(far(6)[5:], 5000, axis=0)])
    assert len(near_pairs(values)) == 4999


def test_equal_rows_of_two_sets_are_not_as_many_pairs_as_their_product() -> None:
    equal = np.repeat(far(1), 4000, axis=0)
    assert len(near_pairs(equal, equal)) == 7999


def test_flat_images_are_paired_with_none() -> None:
    nothing = np.full((50, 64), ZERO, np.uint8)
    assert not len(near_pairs(nothing)) and not len(near_pairs(nothing, nothing))


def test_what_is_a_little_too_far_is_not_paired() -> None:
    values = np.repeat(far(1) // 2, 3, axis=0)
    values[1, 0] += int(DISTANCE)
    values[2, 1] += int(DISTANCE) + 1
    assert near_pairs(values).tolist() == [[0, 1]]


def test_a_crowd_costs_no_more_than_its_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "CROWDS", (4, 8))
    crowd = np.unique(np.full((500, 64), 90) + np.random.default_rng(0).integers(-1, 2, (500, 64)), axis=0)
    values = crowd.astype(np.uint8)
    pairs = near_pairs(values)
    assert len(pairs) <= 8 * len(values)
    assert components(pairs, len(values)) == [0] * len(values)


@pytest.mark.parametrize("slab", [1, 20, 150])
def test_slabs_hide_no_pairs(monkeypatch: pytest.MonkeyPatch, slab: int) -> None:
    values, others = clustered(300, 5), clustered(200, 5)
    whole, between = near_pairs(values), near_pairs(values, others)
    monkeypatch.setattr(near_duplicates, "SLAB", slab)
    assert near_pairs(values).tolist() == whole.tolist() and len(whole)
    assert near_pairs(values, others).tolist() == between.tolist() and len(between)


def test_no_more_slabs_than_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    values = clustered(300, 5)
    whole = near_pairs(values).tolist()
    asked: list[np.ndarray] = []

    def near(along: Any, rows: np.ndarray, tree: Any) -> Iterator[np.ndarray]:
        asked.append(rows)
        return plain(along, rows, tree)

    plain = near_duplicates._near
    monkeypatch.setattr(near_duplicates, "_near", near)
    monkeypatch.setattr(near_duplicates, "SLAB", 1)
    monkeypatch.setattr(near_duplicates, "SLABS", 5)
    assert (near_pairs(values).tolist(), len(asked)) == (whole, 5)


def test_few_ask_as_many_would() -> None:
    values = np.unique(clustered(600, 5), axis=0)
    between = near_pairs(values, values)
    assert near_pairs(values[:20], values).tolist() == between[between[:, 0] < 20].tolist()


def test_what_only_adds_up_to_the_same_is_not_equal() -> None:
    values = far(3)
    values[1] = np.roll(values[0], 8)
    values[2] = values[1]
    assert near_pairs(values).tolist() == [[1, 2]]


def peak(rows: int) -> int:
    """Return the most bytes that linking so many rows has in arrays at a time."""
    values, patients = far(rows), np.arange(rows) // 12
    tracemalloc.start()
    try:
        linked_groups(values, patients)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_linking_takes_no_copy_of_all_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "SLAB", 512)
    monkeypatch.setattr(near_duplicates, "AT_ONCE", 2**12)
    linked_groups(far(100), np.arange(100))
    assert peak(40_000) - peak(10_000) < 30_000 * 64 * 1.5


def test_pairs_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = clustered(300, 5)
    whole = near_pairs(values)
    monkeypatch.setattr(near_duplicates, "AT_ONCE", 7)
    assert (near_pairs(values) == whole).all() and len(whole)


def copied(*chains: tuple[int, ...], rows: int = 8) -> np.ndarray:
    """Return fingerprints in which the rows of each chain show one image."""
    values = far(rows)
    for first, *rest in chains:
        values[list(rest)] = values[first]
    return values


def members(groups: np.ndarray) -> list[list[int]]:
    """Return the patients of each group."""
    return sorted(np.flatnonzero(groups == group).tolist() for group in np.unique(groups))


def test_patients_are_linked_through_others() -> None:
    groups = linked_groups(copied((0, 1), (2, 5)), np.array([3, 1, 1, 4, 5, 0, 2, 2]))
    assert members(groups) == [[0, 1, 3], [2], [4], [5]]


def test_a_patient_is_not_linked_with_himself() -> None:
    assert len(members(linked_groups(copied((0, 1)), np.array([0, 0, 1, 2, 3, 4, 5, 6])))) == 7


def test_new_patients_are_linked_without_links_between_known_ones() -> None:
    groups = linked_groups(copied((0, 7), (1, 6, 5), (2, 3)), np.arange(8), np.arange(8) >= 5)
    assert members(groups) == [[0, 7], [1, 5, 6], [2], [3], [4]]


def test_rows_of_nobody_link_none() -> None:
    values = np.repeat(far(1) // 2, 3, axis=0)
    values[1, 0] += 10
    values[2, 0] += 20
    assert members(linked_groups(values, np.array([0, 1, 2]))) == [[0, 1, 2]]
    assert members(linked_groups(values, np.array([0, -1, 1]))) == [[0], [1]]
    assert members(linked_groups(values, np.array([0, -1, 1]), np.array([False, True]))) == [[0], [1]]


def test_an_overlap_names_rows_of_two_patients_in_two_splits() -> None:
    splits = ["train", "test", "val", "train", "test", "test", "train", None]
    overlaps = row_overlaps(copied((0, 1), (2, 3), (4, 5), (6, 7)), list("abccdeff"), splits)
    # 2 and 3 are of one patient, who is in two splits; 4 and 5 are in one split; 7 is in none.
    assert overlaps.to_pylist() == [
        {"row": 0, "other": 1, "distance": 0.0},
        {"row": 2, "other": 3, "distance": None},
    ]
    assert overlaps.schema == ROW_OVERLAPS


def test_a_patient_in_three_splits_is_named_for_each_further_one() -> None:
    splits = ["train", "train", "test", "test", "val", "val"]
    overlaps = row_overlaps(far(6), ["a", "b", "a", "a", "a", "c"], splits)
    assert overlaps.select(["row", "other"]).to_pylist() == [{"row": 0, "other": 2}, {"row": 0, "other": 4}]


def test_every_row_with_an_overlap_is_named() -> None:
    splits = ["train"] * 4 + ["test"] * 4
    overlaps = row_overlaps(copied((0, 1, 2, 3, 4, 5, 6, 7)), list("abcdefgh"), splits).to_pylist()
    assert {row[name] for row in overlaps for name in ("row", "other")} == set(range(8))


def test_what_has_no_rows_has_no_overlaps() -> None:
    assert not len(row_overlaps(np.empty((0, 64), np.uint8), [], []))
    assert not len(linked_groups(np.empty((0, 64), np.uint8), np.empty(0, np.int64)))


class RowsOfTable:
    """Rows that a table of the bench would print."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def row(self, what: str, figure: str, limit: str, *, kept: bool = True) -> None:
        assert kept, f"{what}: {figure}, {limit}"
        self.rows.append((what, figure))


@pytest.mark.slow
def test_no_two_different_painted_images_are_taken_for_one() -> None:
    others(RowsOfTable(), chests(200, 256), 0)  # type: ignore[arg-type]


def test_the_repeated_images_of_painted_slices_are_near_pairs() -> None:
    images = chests(40, 64)
    prepared = images.fingerprints([*images.values, *images.values[3:9]])
    assert sorted(near_pairs(prepared).tolist()) == [[one, 40 + one - 3] for one in range(3, 9)]


def test_eight_digits_in_two_splits_are_overlaps(tmp_path: Path) -> None:
    with np.load(write_digits(tmp_path / "digits.npz")) as file:
        train = file["train_images"]
    images, splits = np.concatenate([train, train[:8]]), ["train"] * len(train) + ["val"] * 8
    overlaps = row_overlaps(fingerprints(images), list(map(str, range(len(images)))), splits).filter(
        pc.field("distance") == 0
    )
    assert set(overlaps["other"].to_pylist()) | set(overlaps["row"].to_pylist()) >= {
        *range(8),
        *range(600, 608),
    }


@pytest.mark.parametrize(
    "images", [lambda: ct_contrast(64), pneumonia], ids=["ct-contrast", "pneumoniamnist"]
)
@pytest.mark.slow
def test_no_two_different_real_images_are_taken_for_one(images: "type[Images]", data_dir: Path) -> None:
    others(RowsOfTable(), images(), 0)  # type: ignore[arg-type, call-arg]


def test_the_repeated_images_of_ct_contrast_are_near_pairs(data_dir: Path) -> None:
    images = ct_contrast(64)
    pairs = near_pairs(images.fingerprints(images.values))
    equal = [(images.values[one] == images.values[two]).all() for one, two in pairs]
    assert (len(pairs), all(equal)) == (6, True)


def test_the_eight_images_of_pneumoniamnist_in_two_splits_are_overlaps(data_dir: Path) -> None:
    images = pneumonia()
    splits = ["train"] * 4708 + ["val"] * 524 + ["test"] * 624
    overlaps = row_overlaps(fingerprints(np.asarray(images.values)), images.patients.tolist(), splits)
    assert len({row["other"] for row in overlaps.to_pylist()}) == 8
    assert set(overlaps["distance"].to_pylist()) == {0.0}


@given(st.lists(st.integers(-3, 3)))
def test_numbers_are_given_once_in_order(values: list[int]) -> None:
    assert unique_sorted(np.array(values, np.int64)).tolist() == sorted(set(values))
